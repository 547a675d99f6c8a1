#include <cmath>
#include <utility>

#include "ops/add/add.h"
#include "ops/harness/cases.h"

namespace millrace::ops {

std::vector<Case> add_cases() {
  using enum ir::DType;
  const auto same = [](std::string name, ir::DType dtype, const std::vector<int64_t>& shape) {
    return Case{.name = std::move(name), .inputs = {normal(dtype, shape), normal(dtype, shape)}};
  };
  Case wide = same("512 x 2048", kF32, {512, 2048});
  wide.benchmark = true;
  return {same("novelist-14m", kF32, {5, 384}),
          same("fewer elements than one vector", kF32, {3}),
          same("a scalar", kF32, {}),
          same("more than one thread takes, none a whole vector", kF32, {17, 4099}),
          same("rank 3", kF32, {2, 3, 7}),
          same("bf16", kBF16, {3, 37}),
          same("f16", kF16, {3, 37}),
          same("no elements", kF32, {0, 4}),
          {.name = "infinities and NaN",
           .inputs = {floats(kF32, {4}, {INFINITY, -INFINITY, NAN, 1}),
                      floats(kF32, {4}, {1, -INFINITY, 0, NAN})}},
          wide};
}

}  // namespace millrace::ops
