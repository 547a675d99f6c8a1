#include "ops/harness/cases.h"
#include "ops/moe_route/moe_route.h"

namespace millrace::ops {

std::vector<Case> moe_route_cases() {
  using enum ir::DType;
  const auto make = [](const char* name, const MoeRoute& a, int64_t rows, int64_t experts) {
    Case c{.name = name, .attrs = to_attrs(a), .inputs = {normal(kF32, {rows, experts}, 2)}};
    if (a.bias) c.inputs.push_back(normal(kF32, {experts}, 0.2));
    return c;
  };
  const MoeRoute mixtral{.experts_per_token = 2, .normalise = true};
  const MoeRoute qwen{.experts_per_token = 4};
  const MoeRoute sigmoid{.experts_per_token = 3, .scores = "sigmoid"};
  const MoeRoute deepseek_v2{.experts_per_token = 6, .scale = 16, .groups = 8, .kept_groups = 3};
  const MoeRoute deepseek_v3{.experts_per_token = 8,
                             .scores = "sigmoid",
                             .normalise = true,
                             .scale = 2.5,
                             .bias = true,
                             .groups = 8,
                             .kept_groups = 4,
                             .group_score = "top2"};
  MoeRoute every_expert = mixtral;
  every_expert.experts_per_token = 5;
  std::vector<Case> cases = {
      make("mixtral", mixtral, 9, 8),
      make("qwen: weights of a softmax over all", qwen, 7, 60),
      make("sigmoid", sigmoid, 7, 33),
      make("deepseek v2: the best groups by their best", deepseek_v2, 33, 160),
      make("deepseek v3: bias, groups by their two best", deepseek_v3, 70, 256),
      make("every expert", every_expert, 3, 5),
      make("one expert", {.scores = "sigmoid"}, 5, 1),
      make("most experts", qwen, 3, kMaxExperts),
      make("no rows", mixtral, 0, 8),
      {.name = "equal logits: the lower id first",
       .attrs = to_attrs(qwen),
       .inputs = {floats(kF32, {2, 6}, {1, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0})}},
      {.name = "equal groups: the lower one first",
       .attrs = to_attrs(MoeRoute{.experts_per_token = 2, .groups = 3}),
       .inputs = {floats(kF32, {2, 6}, {0, 1, 2, 3, 3, 2, 1, 1, 1, 1, 1, 1})}},
      make("1 x 128", {.experts_per_token = 8, .normalise = true}, 1, 128),
      make("512 x 128", {.experts_per_token = 8, .normalise = true}, 512, 128),
      make("512 x 256, deepseek v3", deepseek_v3, 512, 256),
  };
  for (size_t i = cases.size() - 3; i < cases.size(); ++i)
    cases[i].benchmark = true;
  return cases;
}

}  // namespace millrace::ops
