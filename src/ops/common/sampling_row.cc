#include "ops/common/sampling_row.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace millrace::ops {
namespace {

constexpr double kGreedyTemperature = 1e-5;  // below, x / temperature nears the end of float

ListSpan add_list(const std::vector<int>& values, std::vector<int32_t>* lists) {
  const ListSpan span{static_cast<int32_t>(lists->size()), static_cast<int32_t>(values.size())};
  lists->insert(lists->end(), values.begin(), values.end());
  return span;
}

std::vector<int> join_ids(std::span<const int> a, std::span<const int> b) {
  std::vector<int> joined(a.begin(), a.end());
  joined.insert(joined.end(), b.begin(), b.end());
  std::sort(joined.begin(), joined.end());
  joined.erase(std::unique(joined.begin(), joined.end()), joined.end());
  return joined;
}

/// An end token by itself is no bad word, as in transformers.
std::vector<int> encode_bad_words(const std::vector<std::vector<int>>& words,
                                  std::span<const int> end_ids) {
  std::vector<int> encoded;
  for (const auto& word : words) {
    if (word.size() == 1 && std::count(end_ids.begin(), end_ids.end(), word[0]) > 0) continue;
    encoded.push_back(static_cast<int>(word.size()));
    encoded.insert(encoded.end(), word.begin(), word.end());
  }
  return encoded;
}

void pack_draw(const SamplingParams& params, SamplingRow* row) {
  row->top_k = params.top_k;
  row->temperature = static_cast<float>(params.temperature);
  row->top_p = static_cast<float>(params.top_p);
  row->min_p = static_cast<float>(params.min_p);
  row->typical_p = static_cast<float>(params.typical_p);
  const bool greedy =
      !params.do_sample || params.temperature < kGreedyTemperature || params.top_k == 1;
  if (!greedy) row->flags |= kSamplingDraws;
}

void pack_lists(const SamplingParams& params, std::span<const int> end_ids,
                PackedSampling* packed) {
  SamplingRow& row = packed->row;
  std::vector<int32_t>& lists = packed->lists;
  std::vector<int> bias;
  for (const auto& [id, value] : params.logit_bias) {
    bias.push_back(id);
    bias.push_back(std::bit_cast<int32_t>(value));
  }
  row.logit_bias = add_list(bias, &lists);
  row.bad_words = add_list(encode_bad_words(params.bad_words, end_ids), &lists);
  row.end_ids = params.min_new_tokens == 0
                    ? ListSpan{}
                    : add_list(join_ids(end_ids, params.stop_token_ids), &lists);
  if (params.num_beams > 1) {
    packed->beam_ends = add_list(join_ids(end_ids, params.stop_token_ids), &lists);
  }
  row.suppress = add_list(params.suppress_tokens, &lists);
  row.begin_suppress = add_list(params.begin_suppress_tokens, &lists);
  row.forced_eos = add_list(params.forced_eos_token_ids, &lists);
}

bool adjusts(const SamplingRow& row) {
  const int new_tokens = row.length - row.prompt_length;
  const bool penalised =
      row.repetition_penalty != 1 ||
      ((row.presence_penalty != 0 || row.frequency_penalty != 0) && new_tokens > 0);
  const bool forced = (row.forced_bos >= 0 && row.length == 1) ||
                      (row.forced_eos.count > 0 && row.length == row.max_length - 1);
  return penalised || forced || row.logit_bias.count > 0 || row.bad_words.count > 0 ||
         row.suppress.count > 0 ||
         (row.no_repeat_ngram_size > 0 && row.length >= row.no_repeat_ngram_size) ||
         (row.end_ids.count > 0 && new_tokens < row.min_new_tokens) ||
         (row.begin_suppress.count > 0 && row.length == row.begin_length);
}

}  // namespace

PackedSampling pack_sampling(const SamplingParams& params, const SamplingDefaults& defaults) {
  PackedSampling packed;
  SamplingRow& row = packed.row;
  row.prompt_length = defaults.prompt_length;
  row.seed = params.seed.value_or(defaults.seed);
  row.output_index = defaults.output_index;
  pack_draw(params, &row);
  row.repetition_penalty = static_cast<float>(params.repetition_penalty);
  row.presence_penalty = static_cast<float>(params.presence_penalty);
  row.frequency_penalty = static_cast<float>(params.frequency_penalty);
  row.no_repeat_ngram_size = params.no_repeat_ngram_size;
  row.min_new_tokens = params.min_new_tokens;
  row.forced_bos = params.forced_bos_token_id.value_or(-1);
  const int max_new_tokens = params.max_new_tokens.value_or(defaults.max_new_tokens);
  row.max_length = max_new_tokens == 0 ? 0 : defaults.prompt_length + max_new_tokens;
  // After a forced first token the "begin" is the second, as in transformers.
  const bool after_bos = params.forced_bos_token_id && defaults.prompt_length <= 1;
  row.begin_length = defaults.prompt_length + (after_bos ? 1 : 0);
  std::span<const int> end_ids = defaults.end_token_ids;
  if (params.end_token_ids) end_ids = *params.end_token_ids;
  if (params.ignore_eos) end_ids = {};
  pack_lists(params, end_ids, &packed);
  return packed;
}

SamplingRow sampling_row_at(const PackedSampling& packed, int slot, int length, int list_offset) {
  SamplingRow row = packed.row;
  row.slot = slot;
  row.length = length;
  for (ListSpan* span : {&row.logit_bias, &row.bad_words, &row.end_ids, &row.suppress,
                         &row.begin_suppress, &row.forced_eos}) {
    span->offset += list_offset;
  }
  if (adjusts(row)) row.flags |= kSamplingAdjusts;
  return row;
}

SamplingRow read_sampling_row(const int32_t* rows, int64_t index) {
  SamplingRow row;
  std::memcpy(static_cast<void*>(&row), rows + index * kSamplingRowWords, sizeof row);
  return row;
}

}  // namespace millrace::ops
