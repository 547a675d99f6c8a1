#include "millrace/sampling.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/error.h"

namespace millrace {
namespace {

constexpr std::string_view kWhere = "sampling parameters";

/// Throws unless low <= value <= high; NaN is outside.
void check_range(std::string_view field, double value, double low, double high) {
  if (value >= low && value <= high) return;
  throw_bad_input(str(field, " is ", value), std::string(kWhere),
                  str("use a value from ", low, " to ", high));
}

void check_at_least(std::string_view field, int value, int low) {
  if (value >= low) return;
  throw_bad_input(str(field, " is ", value), std::string(kWhere), str("use ", low, " or more"));
}

void check_token(std::string_view field, int id, int64_t vocab_size) {
  if (id >= 0 && (vocab_size == 0 || id < vocab_size)) return;
  throw_bad_input(
      str(field, " has the token id ", id), std::string(kWhere),
      vocab_size == 0 ? "token ids are not negative" : str("token ids are below ", vocab_size));
}

void check_tokens(std::string_view field, const std::vector<int>& ids, int64_t vocab_size) {
  for (const int id : ids)
    check_token(field, id, vocab_size);
}

void check_draw(const SamplingParams& p) {
  if (!(p.temperature >= 0 && std::isfinite(p.temperature))) {
    throw_bad_input(str("temperature is ", p.temperature), std::string(kWhere),
                    "use 0 (greedy) or more");
  }
  check_at_least("top_k", p.top_k, 0);
  check_range("top_p", p.top_p, 0, 1);
  check_range("min_p", p.min_p, 0, 1);
  if (!(p.typical_p > 0 && p.typical_p <= 1)) {
    throw_bad_input(str("typical_p is ", p.typical_p), std::string(kWhere),
                    "use a value above 0 and up to 1");
  }
}

void check_penalties(const SamplingParams& p) {
  if (!(p.repetition_penalty > 0 && std::isfinite(p.repetition_penalty))) {
    throw_bad_input(str("repetition_penalty is ", p.repetition_penalty), std::string(kWhere),
                    "use a value above 0; 1 is neutral");
  }
  check_range("presence_penalty", p.presence_penalty, -2, 2);
  check_range("frequency_penalty", p.frequency_penalty, -2, 2);
  check_at_least("no_repeat_ngram_size", p.no_repeat_ngram_size, 0);
}

void check_logit_bias(const SamplingParams& p, int64_t vocab_size) {
  std::vector<int> ids;
  for (const auto& [id, bias] : p.logit_bias) {
    check_token("logit_bias", id, vocab_size);
    check_range("logit_bias", static_cast<double>(bias), -100, 100);
    ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice != ids.end()) {
    throw_bad_input(str("logit_bias has the token id ", *twice, " twice"), std::string(kWhere),
                    "give each token one bias");
  }
}

void check_length(const SamplingParams& p) {
  check_at_least("min_new_tokens", p.min_new_tokens, 0);
  if (!p.max_new_tokens) return;
  check_at_least("max_new_tokens", *p.max_new_tokens, 0);
  if (p.min_new_tokens > *p.max_new_tokens) {
    throw_bad_input(str("min_new_tokens is ", p.min_new_tokens, ", more than max_new_tokens, ",
                        *p.max_new_tokens),
                    std::string(kWhere), "raise max_new_tokens");
  }
}

void check_beams(const SamplingParams& p) {
  check_range("num_beams", p.num_beams, 1, SamplingParams::kMaxBeams);
  if (!std::isfinite(p.length_penalty)) {
    throw_bad_input(str("length_penalty is ", p.length_penalty), std::string(kWhere),
                    "use a finite number; 1 is the default");
  }
  check_at_least("num_return_sequences", p.num_return_sequences, 1);
  if (p.num_return_sequences > p.num_beams) {
    throw_bad_input(
        str("num_return_sequences is ", p.num_return_sequences, ", num_beams ", p.num_beams),
        std::string(kWhere), "return at most as many sequences as there are beams");
  }
  if (p.num_beams == 1) return;
  const auto refuse = [](const char* what, const char* advice) {
    throw_bad_input(str(what, " is not supported with beams"), std::string(kWhere), advice);
  };
  if (p.do_sample) refuse("sampling", "choose beams or sampling");
  if (p.logprobs) refuse("logprobs", "each sequence has its score");
  if (!p.stop.empty()) refuse("a stop text", "use stop_token_ids");
}

/// Forcing tokens that are all suppressed would leave none.
void check_forced(std::string_view field, const std::vector<int>& forced,
                  const std::vector<int>& suppressed) {
  const auto is_suppressed = [&](int id) {
    return std::find(suppressed.begin(), suppressed.end(), id) != suppressed.end();
  };
  if (forced.empty() || !std::all_of(forced.begin(), forced.end(), is_suppressed)) return;
  throw_bad_input(str(field, " ", join(forced, ", "), " is in suppress_tokens"),
                  std::string(kWhere), "remove it from one of them");
}

}  // namespace

void SamplingParams::validate(int64_t vocab_size) const {
  check_draw(*this);
  check_penalties(*this);
  check_logit_bias(*this, vocab_size);
  for (const std::vector<int>& word : bad_words) {
    if (word.empty()) {
      throw_bad_input("bad_words has an empty word", std::string(kWhere),
                      "give each word at least one token");
    }
    check_tokens("bad_words", word, vocab_size);
  }
  check_tokens("suppress_tokens", suppress_tokens, vocab_size);
  check_tokens("begin_suppress_tokens", begin_suppress_tokens, vocab_size);
  if (forced_bos_token_id) check_token("forced_bos_token_id", *forced_bos_token_id, vocab_size);
  check_tokens("forced_eos_token_ids", forced_eos_token_ids, vocab_size);
  if (forced_bos_token_id) {
    check_forced("forced_bos_token_id", {*forced_bos_token_id}, suppress_tokens);
  }
  check_forced("forced_eos_token_ids", forced_eos_token_ids, suppress_tokens);
  if (end_token_ids) check_tokens("end_token_ids", *end_token_ids, vocab_size);
  check_tokens("stop_token_ids", stop_token_ids, vocab_size);
  check_length(*this);
  check_beams(*this);
  if (std::any_of(stop.begin(), stop.end(), [](const auto& text) { return text.empty(); })) {
    throw_bad_input("stop has an empty text", std::string(kWhere),
                    "give each stop text a character");
  }
  if (logprobs) check_range("logprobs", *logprobs, 0, kMaxLogprobs);
  if (prompt_logprobs) check_range("prompt_logprobs", *prompt_logprobs, 0, kMaxLogprobs);
}

}  // namespace millrace
