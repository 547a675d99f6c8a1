// sample_token: chooses the next token of each row and appends it to the history.
//   history: i32 [R, M], logits: f32 [L, V], adjusted: f32 [L, V], rows: i32 [L, 32]
//   -> history, in the same memory; tokens: i32 [L]; status: i32 [L] (SamplingStatus)
// x is the row of `adjusted` when it has kSamplingAdjusts, else of `logits`; where no row has it,
// the caller may bind the same memory to both.
//   history[slot, length] = tokens[l] = the choice
// Rows of one step have different slots. Nothing is appended where length >= M.
//
// Without kSamplingDraws: the arg-max, the lowest token of equals. With it, in transformers' order
// and semantics:
//   s[t] = x[t] / temperature;  w[t] = exp(s[t] - max s);  q[t] = round(w[t] * 2^40)
//   top_k      keep s[t] >= the k-th largest
//   top_p      in the order of (s, t), ascending: drop while the sum of q up to and with t is at
//              most (1 - top_p) * (sum of q of those kept by top_k)
//   min_p      keep w[t] >= min_p
//   typical_p  a[t] = |mean of s - s[t]|, the mean over those kept and weighted by q: keep a[t] <=
//              the smallest a whose set {a[u] <= a} has at least typical_p of the q of those kept
//   draw       r = floor(random * sum of q) in integers; the first t, in the order of tokens, where
//              the sum of the kept q up to and with t exceeds r
// The most probable token is always kept.
//
// Weights are integers, so their sums do not depend on order: any reduction tree, histogram by
// atomics or block scan gives the same thresholds and the same token, on every device and with any
// number of threads. exp is our own (ops/common/sampling_math.h): the same bits everywhere.
// A token with w < 2^-41 cannot be drawn.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct SampleToken {
  static constexpr std::string_view kName = "sample_token";
  bool operator==(const SampleToken&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
