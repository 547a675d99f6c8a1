#include "ops/harness/cases.h"
#include "ops/sample_prompt/sample_prompt.h"

namespace millrace::ops {

std::vector<Case> sample_prompt_cases() {
  const auto with = [](const char* name, const std::vector<int32_t>& segments) {
    const auto count = static_cast<int64_t>(segments.size()) / 4;
    return Case{.name = name,
                .attrs = {},
                .inputs = {ids({4, 16}, 1000), ids({40}, 1000), ints({count, 4}, segments)}};
  };
  return {
      with("two prompts and padding", {2, 0, 5, 16, -1, 0, 0, 0, 0, 3, 21, 4}),
      with("a prompt that fills its slot", {3, 0, 24, 16}),
      with("no room for all of it", {0, 14, 0, 9, 1, 16, 0, 2}),
      with("an empty prompt", {1, 4, 0, 0}),
      with("no segments", {}),
  };
}

}  // namespace millrace::ops
