#include <cmath>
#include <utility>

#include "ops/harness/cases.h"
#include "ops/rescale/rescale.h"

namespace millrace::ops {

std::vector<Case> rescale_cases() {
  using enum ir::DType;
  const std::pair<const char*, Rescale> kSteps[] = {
      {"factor", {.factor = -0.0625}},
      {"softcap", {.softcap = 30}},
      {"bounds", {.low = -1.5, .high = 2}},
      {"one bound", {.high = 0.5}},
      {"all steps", {.factor = 3, .softcap = 5, .low = -4, .high = 4.5}},
  };
  std::vector<Case> cases;
  for (const auto& [kind, attrs] : kSteps) {
    const auto add = [&](const char* name, InputSpec input) {
      cases.push_back(
          {.name = str(kind, ", ", name), .attrs = to_attrs(attrs), .inputs = {std::move(input)}});
    };
    add("length that no vector divides", normal(kF32, {3, 37}, 2));
    add("more than one thread takes", normal(kF32, {17, 4099}, 20));
    add("near zero", uniform(kF32, {64}, -1e-4, 1e-4));
    add("limits", floats(kF32, {6}, {INFINITY, -INFINITY, 0, -0.0F, 3e38F, NAN}));
    add("bf16", normal(kBF16, {3, 37}, 2));
    add("f16", normal(kF16, {3, 37}, 2));
    add("no elements", normal(kF32, {0, 4}));
  }
  for (const auto& [kind, attrs] : {kSteps[0], kSteps[1]}) {
    cases.push_back({.name = str(kind, ", 512 x 2048"),
                     .attrs = to_attrs(attrs),
                     .inputs = {normal(kF32, {512, 2048})},
                     .benchmark = true});
  }
  return cases;
}

}  // namespace millrace::ops
