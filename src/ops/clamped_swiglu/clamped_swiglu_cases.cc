#include "ops/clamped_swiglu/clamped_swiglu.h"
#include "ops/harness/cases.h"

namespace millrace::ops {

std::vector<Case> clamped_swiglu_cases() {
  using enum ir::DType;
  const auto make = [](const char* name, ir::DType dtype, std::vector<int64_t> shape) {
    return Case{.name = name, .inputs = {normal(dtype, std::move(shape), 6)}};
  };
  std::vector<Case> cases = {
      make("four experts of three tokens", kF32, {3, 4, 90}),
      make("rows alone", kF32, {5, 26}),
      make("one pair", kF32, {3, 1, 2}),
      make("more than one thread takes", kF32, {9, 4, 2222}),
      make("no rows", kF32, {0, 4, 8}),
      make("bf16", kBF16, {3, 2, 50}),
      make("f16", kF16, {3, 2, 50}),
      {.name = "another alpha and limit",
       .attrs = to_attrs(ClampedSwiglu{.alpha = 0.5, .limit = 2}),
       .inputs = {normal(kF32, {4, 2, 30}, 3)}},
      make("512 x 4 x 5760", kF32, {512, 4, 5760}),
  };
  cases.back().benchmark = true;
  return cases;
}

}  // namespace millrace::ops
