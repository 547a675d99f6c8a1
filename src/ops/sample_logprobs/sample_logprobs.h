// sample_logprobs: log-probabilities of given tokens and of the best ones, from raw logits.
//   lp[l, t] = x[l, t] - log(sum over u of exp(x[l, u]))
//   x: f32 [L, V], targets: i32 [L], counts: i32 [L]
//   -> logprobs: f32 [L] = lp[l, targets[l]];
//      top_ids: i32 [L, k], top_logprobs: f32 [L, k]: the counts[l] <= k most probable tokens, best
//      first, the lowest token of equals first; entries from counts[l] on are -1 and 0
// `targets` are the tokens sample_token chose, or the prompt's next tokens. counts[l] = -1: nobody
// wants this row, its logprob is 0. A target outside the vocabulary: 0. A row with a NaN or
// +infinity, or of nothing but -infinity, has no probabilities: all its numbers are NaN and its ids
// -1.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct SampleLogprobs {
  static constexpr std::string_view kName = "sample_logprobs";
  int k = 1;  // columns of top_ids and top_logprobs
  bool operator==(const SampleLogprobs&) const = default;
  static constexpr auto fields() { return std::tuple{Field{"k", &SampleLogprobs::k}}; }
};

}  // namespace millrace::ops
