// moe_route: which experts a token goes to, and how much each of them counts.
//   logits: f32 [T, E]; bias: float [E] if `bias` -> ids i32 [T, k], weights f32 [T, k]
//
//   score_e = softmax(logits)_e or sigmoid(logits_e)        choice_e = score_e (+ bias_e)
//   ids: the k largest choices, best first, the lower id where two are equal
//   weight_e = scale * score_e (/ sum of the chosen scores)  the bias only chooses
//
// With groups, E is cut into `groups` equal parts, a part counts as its largest choice ("max") or
// the sum of its two largest ("top2"), and only experts of the best `kept_groups` parts are chosen.
// With normalised weights, softmax over all experts and softmax over the chosen ones are the same.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

inline constexpr int kMaxExperts = 1024;
inline constexpr int kMaxExpertGroups = 32;

struct MoeRoute {
  static constexpr std::string_view kName = "moe_route";
  int experts_per_token = 1;       // k
  std::string scores = "softmax";  // or "sigmoid"
  bool normalise = false;          // chosen weights sum to scale
  double scale = 1;
  bool bias = false;
  int groups = 1;
  int kept_groups = 1;
  std::string group_score = "max";  // or "top2"
  bool operator==(const MoeRoute&) const = default;
  static constexpr auto fields() {
    using R = MoeRoute;
    return std::tuple{Field{"experts_per_token", &R::experts_per_token},
                      Field{"scores", &R::scores},
                      Field{"normalise", &R::normalise},
                      Field{"scale", &R::scale},
                      Field{"bias", &R::bias},
                      Field{"groups", &R::groups},
                      Field{"kept_groups", &R::kept_groups},
                      Field{"group_score", &R::group_score}};
  }
};

}  // namespace millrace::ops
