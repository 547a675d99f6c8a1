// What the sampling ops know about one row of logits: a fixed-size record, uploaded with the batch,
// and the lists it points into. Made on the host from SamplingParams.
//
// Tensors that the sampling ops share; L rows of logits are in the step, V is the vocabulary:
//   rows     i32 [L, 32]  SamplingRow records
//   lists    i32 [P]      the lists of all rows, found by SamplingRow's spans; P >= 1
//   history  i32 [R, M]   the tokens of each slot, prompt and new, by position. Lives on the
//   device:
//                         sample_prompt writes prompts, sample_token appends, so that the host need
//                         not know a token to run the next step. merge_ids reads new tokens here:
//                         its `last_ids` is the whole history, token (slot, position) at
//                         slot * M + position.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "millrace/sampling.h"

namespace millrace::ops {

enum SamplingFlag : int32_t {
  kSamplingDraws = 1,    // draw; else the arg-max
  kSamplingAdjusts = 2,  // sample_process works on this row; else it leaves the row alone
};

/// A part of `lists`.
struct ListSpan {
  int32_t offset = 0;
  int32_t count = 0;  // in int32 words
};

struct SamplingRow {
  int32_t slot = -1;          // row of `history`; -1: a padding row, whose outputs are 0
  int32_t flags = 0;          // SamplingFlag
  int32_t length = 0;         // tokens in the history; the position of the token to choose
  int32_t prompt_length = 0;  // of these, the prompt's (decoder's prompt for encoder-decoders)
  uint64_t seed = 0;
  int32_t output_index = 0;  // which of the outputs of its request (num_return_sequences)
  int32_t top_k = 0;
  float temperature = 1;
  float top_p = 1;
  float min_p = 0;
  float typical_p = 1;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  int32_t no_repeat_ngram_size = 0;
  int32_t min_new_tokens = 0;
  int32_t max_length = 0;        // prompt and new tokens: where forced_eos applies; 0: no limit
  int32_t forced_bos = -1;       // -1: none
  int32_t begin_length = 0;      // the length at which begin_suppress applies
  ListSpan logit_bias = {};      // pairs (token, bits of a float)
  ListSpan bad_words = {};       // for each word: its length n, then n tokens
  ListSpan end_ids = {};         // end and stop tokens, for min_new_tokens
  ListSpan suppress = {};        // tokens
  ListSpan begin_suppress = {};  // tokens
  ListSpan forced_eos = {};      // tokens
};

inline constexpr int kSamplingRowWords = 32;
static_assert(sizeof(SamplingRow) == kSamplingRowWords * sizeof(int32_t));

/// What sample_token reports about a row.
enum SamplingStatus : int32_t {
  kSamplingOk = 0,
  kSamplingNotFinite = 1,    // a NaN or +infinity among the logits; the token is 0
  kSamplingNoCandidate = 2,  // all tokens are masked; the token is 0
};

/// What a request needs on the device, fixed while it lives.
struct PackedSampling {
  SamplingRow row;             // its spans count from the start of `lists`
  ListSpan beam_ends = {};     // with beams: end and stop tokens, each once
  std::vector<int32_t> lists;  // may be empty
};

/// What SamplingParams leave open, decided by the caller.
struct SamplingDefaults {
  int prompt_length = 0;
  int max_new_tokens = 0;  // 0: no limit (forced_eos then never applies)
  uint64_t seed = 0;       // when params.seed is unset
  int output_index = 0;
  std::span<const int> end_token_ids = {};  // when params.end_token_ids is unset
};

/// REQUIRES: params.validate() passed.
PackedSampling pack_sampling(const SamplingParams& params, const SamplingDefaults& defaults);

/// The record of one step: `list_offset` is where the request's lists lie in this step's `lists`.
/// Sets kSamplingAdjusts only when a processor acts at this length.
SamplingRow sampling_row_at(const PackedSampling& packed, int slot, int length, int list_offset);

/// Row `index` of the tensor `rows`, which need not be aligned to more than an int32.
SamplingRow read_sampling_row(const int32_t* rows, int64_t index);

}  // namespace millrace::ops
