#include <cmath>
#include <utility>

#include "ops/activation/activation.h"
#include "ops/harness/cases.h"

namespace millrace::ops {

std::vector<Case> activation_cases() {
  using enum ir::DType;
  std::vector<Case> cases;
  for (const char* kind : {"none", "silu", "gelu", "gelu_new", "relu", "relu2", "quick_gelu"}) {
    const ir::Attrs attrs = to_attrs(Activation{.kind = kind});
    const auto add = [&](const char* name, InputSpec input) {
      cases.push_back(
          {.name = str(kind, ", ", name), .attrs = attrs, .inputs = {std::move(input)}});
    };
    add("length that no vector divides", normal(kF32, {3, 37}, 2));
    add("more than one thread takes", normal(kF32, {7, 9001}, 3));
    add("far from zero", uniform(kF32, {2, 100}, -120, 120));
    add("near zero", uniform(kF32, {64}, -1e-4, 1e-4));
    add("limits", floats(kF32, {6}, {INFINITY, 0, -0.0F, 3e38F, -3e38F, NAN}));
    add("bf16", normal(kBF16, {3, 37}, 2));
    add("f16", normal(kF16, {3, 37}, 2));
    cases.push_back({.name = str(kind, ", 512 x 2048"),
                     .attrs = attrs,
                     .inputs = {normal(kF32, {512, 2048})},
                     .benchmark = true});
  }
  return cases;
}

}  // namespace millrace::ops
