#include "ops/harness/cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include "base/check.h"

namespace millrace::ops {

// Defined in NAME_cases.cc of each op's folder; the list is made by cmake/discover.cmake from the
// file names.
#define MILLRACE_CASES(name) std::vector<Case> name##_cases();
#include "gen/case_list.inc"
#undef MILLRACE_CASES

uint64_t Random::bits() {  // SplitMix64 (Steele, Lea, Flood 2014)
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double Random::uniform() {
  return static_cast<double>(bits() >> 11) * 0x1p-53;
}

double Random::normal() {  // Box and Muller's first half; the second would need a memory
  const double radius = std::sqrt(-2 * std::log(1 - uniform()));
  return radius * std::cos(2 * std::numbers::pi * uniform());
}

int64_t Random::below(int64_t end) {
  CHECK(end > 0);
  return static_cast<int64_t>(bits() % static_cast<uint64_t>(end));
}

std::vector<int32_t> Random::permutation(int64_t count) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  for (size_t i = 0; i < order.size(); ++i) {
    order[i] = static_cast<int32_t>(i);
    std::swap(order[i], order[static_cast<size_t>(below(static_cast<int64_t>(i) + 1))]);
  }
  return order;
}

namespace {

/// After so many, numbers repeat: to make those of a large weight takes longer than to use them. A
/// prime, so that two rows are the same only if they are as many apart.
constexpr int64_t kDistinct = 1'000'003;

/// A fill that makes one float after the other.
template <typename Make>
Fill fill_each(Make make) {
  return [make](ir::DType dtype, std::byte* data, int64_t count, Random& random) {
    std::vector<float> values(static_cast<size_t>(std::min(count, kDistinct)));
    for (float& value : values)
      value = static_cast<float>(make(random));
    ir::convert(ir::DType::kF32, values.data(), dtype, data, std::ssize(values));
    const int64_t size = ir::dtype_size(dtype);
    for (int64_t done = std::ssize(values); done < count; done += kDistinct) {
      std::memcpy(data + done * size, data,
                  static_cast<size_t>(std::min(kDistinct, count - done) * size));
    }
  };
}

}  // namespace

InputSpec normal(ir::DType dtype, std::vector<int64_t> shape, double deviation, double mean) {
  return filled(dtype, std::move(shape), fill_each([deviation, mean](Random& random) {
                  return mean + deviation * random.normal();
                }));
}

InputSpec uniform(ir::DType dtype, std::vector<int64_t> shape, double low, double high) {
  return filled(dtype, std::move(shape), fill_each([low, high](Random& random) {
                  return low + (high - low) * random.uniform();
                }));
}

InputSpec ids(std::vector<int64_t> shape, int64_t end) {
  return filled(ir::DType::kI32, std::move(shape),
                [end](ir::DType, std::byte* data, int64_t count, Random& random) {
                  for (int64_t i = 0; i < count; ++i) {
                    const auto id = static_cast<int32_t>(random.below(end));
                    std::memcpy(data + i * 4, &id, 4);
                  }
                });
}

InputSpec ints(std::vector<int64_t> shape, std::vector<int32_t> values) {
  return filled(ir::DType::kI32, std::move(shape),
                [values = std::move(values)](ir::DType, std::byte* data, int64_t count, Random&) {
                  CHECK(count == static_cast<int64_t>(values.size()),
                        "values do not fit the shape");
                  if (count > 0) std::memcpy(data, values.data(), values.size() * 4);
                });
}

InputSpec floats(ir::DType dtype, std::vector<int64_t> shape, std::vector<float> values) {
  return filled(
      dtype, std::move(shape),
      [values = std::move(values)](ir::DType type, std::byte* data, int64_t count, Random&) {
        CHECK(count == static_cast<int64_t>(values.size()), "values do not fit the shape");
        ir::convert(ir::DType::kF32, values.data(), type, data, count);
      });
}

InputSpec filled(ir::DType dtype, std::vector<int64_t> shape, Fill fill) {
  InputSpec input;
  input.dtype = dtype;
  input.shape = std::move(shape);
  input.fill = std::move(fill);
  return input;
}

InputSpec state(StateBuilder builder) {
  InputSpec input;
  input.dtype = ir::DType::kState;
  input.state = std::move(builder);
  return input;
}

InputSpec on_host(InputSpec input) {
  input.host = true;
  return input;
}

InputSpec cold(InputSpec input) {
  input.cold = true;
  return input;
}

double default_tolerance(ir::DType dtype) {
  switch (dtype) {
    case ir::DType::kF32:
      return 2e-6;
    case ir::DType::kF16:
      return 0x1p-10;
    case ir::DType::kBF16:
      return 0x1p-7;
    default:
      return 0;
  }
}

std::vector<Case> op_cases(std::string_view op) {
#define MILLRACE_CASES(name) \
  if (op == #name) return name##_cases();
#include "gen/case_list.inc"
#undef MILLRACE_CASES
  return {};
}

}  // namespace millrace::ops
