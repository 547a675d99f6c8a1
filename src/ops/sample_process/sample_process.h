// sample_process: the logits processors of each row, in transformers' order.
//   logits: f32 [L, V], rows: i32 [L, 32], lists: i32 [P], history: i32 [R, M], adjusted: f32 [L,
//   V]
//   -> adjusted: f32 [L, V], in the memory of the input of that name
// Only rows with kSamplingAdjusts are written, whole; the others keep what they hold, so that a
// batch of plain requests costs nothing. `logits` stays as it is: log-probabilities need it.
//
// Steps, each on the result of the one before; "new" are the tokens from prompt_length on:
//   logit bias          x[t] += bias
//   repetition          every t in the history: x[t] < 0 ? x[t] * penalty : x[t] / penalty
//   presence, frequency every new t, c times new: x[t] -= c * frequency + presence
//   no_repeat_ngram     n: -inf for each t that would repeat n tokens of the history
//   bad words           -inf for the last token of a word whose other tokens end the history
//   min_new_tokens      -inf for end and stop tokens while fewer are new
//   forced bos          length == 1: -inf for all but this token, which becomes 0
//   forced eos          length == max_length - 1: the same for these tokens
//   suppress            -inf for these tokens
//   begin_suppress      length == begin_length: -inf for these tokens
// Tokens outside the vocabulary are passed over. All arithmetic is float, each operation rounded
// once. c * frequency + presence is computed first, as a product and a sum.
//
// The penalties need each token's count in the history. CPU tactics keep an i32 [V] table per task
// in the workspace and clear it by a second walk; the CUDA tactic keeps those of a block's tokens
// in shared memory, filled by atomic additions (integers: any order gives the same bits).
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct SampleProcess {
  static constexpr std::string_view kName = "sample_process";
  bool operator==(const SampleProcess&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
