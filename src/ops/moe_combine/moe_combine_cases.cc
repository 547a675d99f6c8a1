#include "ops/harness/cases.h"
#include "ops/moe_combine/moe_combine.h"

namespace millrace::ops {

std::vector<Case> moe_combine_cases() {
  using enum ir::DType;
  const auto make = [](const char* name, ir::DType dtype, std::vector<int64_t> y) {
    const int64_t experts = y.size() == 3 ? y[1] : 1;
    return Case{.name = name, .inputs = {normal(dtype, y), uniform(kF32, {y[0], experts}, 0, 1)}};
  };
  std::vector<Case> cases = {
      make("two experts", kF32, {3, 2, 64}),
      make("width that no vector divides", kF32, {5, 4, 45}),
      make("one expert, flat", kF32, {7, 29}),
      make("one column", kF32, {4, 3, 1}),
      make("more rows than one thread takes", kF32, {70, 4, 333}),
      make("no rows", kF32, {0, 2, 16}),
      make("bf16", kBF16, {3, 8, 72}),
      make("f16, odd width", kF16, {3, 6, 51}),
      make("1 x 8 x 2048", kF32, {1, 8, 2048}),
      make("512 x 8 x 2048", kF32, {512, 8, 2048}),
      make("bf16 512 x 8 x 2048", kBF16, {512, 8, 2048}),
  };
  for (size_t i = cases.size() - 3; i < cases.size(); ++i)
    cases[i].benchmark = true;
  return cases;
}

}  // namespace millrace::ops
