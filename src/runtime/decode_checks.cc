// What a decode refuses before anything has changed.
#include <algorithm>

#include "base/error.h"
#include "runtime/decode_batch.h"

namespace millrace::runtime {

/// Ids below this number have an embedding: the vocabulary's and the virtual ones.
int DecodeBatch::known_ids(const GenerationRequest& request, const std::string& where) const {
  if (request.prompt_table.empty()) return limits_.vocab_size;
  if (limits_.prompt_table_rows == 0) {
    throw_bad_input("the engine was built without virtual tokens", where,
                    "build it with max_prompt_table_rows");
  }
  const size_t width = static_cast<size_t>(limits_.prompt_table_width);
  const size_t rows = request.prompt_table.size() / width;
  if (request.prompt_table.size() % width != 0 ||
      rows > static_cast<size_t>(limits_.prompt_table_rows)) {
    throw_bad_input(str("the prompt table has ", request.prompt_table.size(), " numbers"), where,
                    str("give rows of ", width, ", at most ", limits_.prompt_table_rows));
  }
  return limits_.vocab_size + static_cast<int>(rows);
}

void DecodeBatch::validate(const std::vector<GenerationRequest>& requests,
                           const DecodeOptions& options) const {
  if (requests.empty()) throw_bad_input("no request was given", "", "give at least one prompt");
  if (limits_.beams > 1 && options.stopping_criteria) {
    throw_bad_input("stopping criteria are not supported with beams", "", "use stop_token_ids");
  }
  if (static_cast<int>(requests.size()) > limits_.batch_size) {
    throw_bad_input(
        str(requests.size(), " requests, but the session was set up for ", limits_.batch_size), "",
        "set up a larger batch_size");
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    const GenerationRequest& request = requests[i];
    const std::string where = requests.size() > 1 ? str("request ", i) : "";
    const auto length = static_cast<int>(request.input_ids.size());
    if (length == 0) throw_bad_input("the prompt is empty", where, "give at least one token");
    const int known = known_ids(request, where);
    for (const int32_t id : request.input_ids) {
      if (id >= 0 && id < known) continue;
      throw_bad_input(str("token id ", id, " is not in the vocabulary of ", limits_.vocab_size),
                      where, "use ids of this model's tokenizer");
    }
    const int end = prompt_end(request, options);
    if (end > limits_.max_context_length) {
      throw_bad_input(
          str("the prompt has ", length, " tokens, the limit is ", limits_.max_context_length),
          where, "shorten it, or raise --max-seq-len");
    }
    try {
      request.sampling.validate(limits_.vocab_size);
    } catch (Error& error) {
      if (!where.empty()) error.add_context(where);
      throw;
    }
    if (request.sampling.num_beams != limits_.beams) {
      throw_bad_input(str("num_beams is ", request.sampling.num_beams,
                          ", the session was set up for ", limits_.beams),
                      where, "set up its beam_width");
    }
    const int best = std::max(request.sampling.logprobs.value_or(0),
                              request.sampling.prompt_logprobs.value_or(0));
    if (best > limits_.max_logprobs) {
      throw_bad_input(str("the ", best, " best tokens are asked for, the session was set up for ",
                          limits_.max_logprobs),
                      where, "set up a larger max_logprobs");
    }
    const int max_new = request.sampling.max_new_tokens.value_or(0);
    if (max_new > limits_.max_new_tokens || end + max_new > limits_.max_seq_len) {
      throw_bad_input(str("a prompt of ", length, " and ", max_new,
                          " new tokens exceed the limit of ", limits_.max_seq_len, " tokens"),
                      where, "lower --max-new-tokens or raise --max-seq-len");
    }
  }
}

}  // namespace millrace::runtime
