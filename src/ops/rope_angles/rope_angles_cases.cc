#include "ops/harness/cases.h"
#include "ops/rope_angles/rope_angles.h"

namespace millrace::ops {

std::vector<Case> rope_angles_cases() {
  const auto inputs = [](int64_t rows, std::vector<int32_t> prompts, std::vector<int32_t> starts,
                         std::vector<int32_t> lengths) {
    const auto sequences = static_cast<int64_t>(prompts.size());
    return std::vector<InputSpec>{ids({rows}, 100000), ints({sequences}, std::move(prompts)),
                                  ints({sequences}, std::move(starts)),
                                  ints({sequences}, std::move(lengths))};
  };
  return {
      {.name = "ragged, rows that no sequence owns",
       .attrs = to_attrs(RopeAngles{.rotary_dim = 24, .theta = 500000}),
       .inputs = inputs(40, {30, 5, 0}, {1, 33, 39}, {30, 5, 1})},
      {.name = "prompts on both sides of a rule's limit",
       .attrs = to_attrs(
           RopeAngles{.rotary_dim = 8, .rule = "dynamic", .factor = 2, .max_position = 16}),
       .inputs = inputs(6, {16, 17, 40}, {0, 2, 4}, {2, 2, 2})},
      {.name = "prompts in the steps of a rule",
       .attrs = to_attrs(RopeAngles{.rotary_dim = 8, .rule = "ntk_steps", .max_position = 16}),
       .inputs = inputs(8, {16, 17, 32, 33}, {0, 2, 4, 6}, {2, 2, 2, 2})},
      {.name = "batch 16 of 1B",
       .attrs = to_attrs(RopeAngles{.rotary_dim = 64, .theta = 500000}),
       .inputs = inputs(16, std::vector<int32_t>(16, 9),
                        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                        std::vector<int32_t>(16, 1)),
       .benchmark = true},
      {.name = "prompt of 512 of 1B",
       .attrs = to_attrs(RopeAngles{.rotary_dim = 64, .theta = 500000}),
       .inputs = inputs(512, {512}, {0}, {512}),
       .benchmark = true},
  };
}

}  // namespace millrace::ops
