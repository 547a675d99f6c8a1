// Cases: the inputs on which every tactic of an op is checked against the reference, and timed.
//
// Every op folder whose op has tactics has NAME_cases.cc with `std::vector<Case> NAME_cases()`. A
// case's name says why it exists:
//
//   std::vector<Case> rms_norm_cases() {
//     return {{.name = "width that no vector divides",
//              .attrs = to_attrs(RmsNorm{}),
//              .inputs = {normal(ir::DType::kF32, {3, 13}), normal(ir::DType::kF32, {13})}}};
//   }
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/attrs.h"
#include "ir/dtype.h"
#include "ops/common/kv_cache_view.h"

namespace millrace::ops {

/// The same numbers on every machine for the same seed.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits();
  double uniform();            // [0, 1)
  double normal();             // mean 0, deviation 1
  int64_t below(int64_t end);  // [0, end)
  /// 0 .. count-1 in random order.
  std::vector<int32_t> permutation(int64_t count);

 private:
  uint64_t state_;
};

/// Writes `count` elements of `dtype` to `data`.
using Fill = std::function<void(ir::DType dtype, std::byte* data, int64_t count, Random& random)>;

/// A KV cache before the op runs. The harness copies `bytes` to where the op runs and sets
/// view.pool. Elements are of view.dtype; what the op must not read holds NaN.
struct StateImage {
  std::vector<std::byte> bytes;
  KvCacheView view;
};
using StateBuilder = std::function<StateImage(Random& random)>;

/// One input: its type, and how it is filled. Made by the functions below.
struct InputSpec {
  ir::DType dtype = ir::DType::kF32;
  std::vector<int64_t> shape;
  Fill fill;
  StateBuilder state;  // for dtype kState, instead of fill
  bool host = false;   // stays in host memory on every device (`host_` inputs)
  /// In use it comes from memory, not from a cache (a big weight, a KV cache): timing goes round
  /// copies of it that no cache holds together.
  bool cold = false;
};

InputSpec normal(ir::DType dtype, std::vector<int64_t> shape, double deviation = 1,
                 double mean = 0);
InputSpec uniform(ir::DType dtype, std::vector<int64_t> shape, double low, double high);
/// i32, each in [0, end).
InputSpec ids(std::vector<int64_t> shape, int64_t end);
/// i32, given.
InputSpec ints(std::vector<int64_t> shape, std::vector<int32_t> values);
/// Given numbers, rounded to `dtype`.
InputSpec floats(ir::DType dtype, std::vector<int64_t> shape, std::vector<float> values);
/// Anything else.
InputSpec filled(ir::DType dtype, std::vector<int64_t> shape, Fill fill);
/// A KV cache (ops/harness/kv_case.h makes builders).
InputSpec state(StateBuilder builder);
InputSpec on_host(InputSpec input);
InputSpec cold(InputSpec input);

struct Case {
  std::string name = {};  // the reason for it: "odd head count"; unique within the op
  ir::Attrs attrs = {};   // to_attrs(Struct{...})
  std::vector<InputSpec> inputs = {};
  bool benchmark = false;  // timed by `millrace bench op`; checked all the same if not too large
  /// Largest difference from the reference, relative to the largest |reference| of that output.
  /// 0: default_tolerance of the output's type.
  double tolerance = 0;
};

/// f32 2e-6 (16 units in the last place), f16 2^-10 and bf16 2^-7 (one unit), integers 0.
double default_tolerance(ir::DType dtype);

/// The cases of the op with this name; none when its folder has no NAME_cases.cc.
std::vector<Case> op_cases(std::string_view op);

}  // namespace millrace::ops
