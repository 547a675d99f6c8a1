#include "ops/sample_process/process_row.h"

#include <bit>
#include <limits>

#include "base/check.h"

namespace millrace::ops {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

void mask(const ProcessRow& p, int32_t id) {
  if (p.knows(id)) p.x[id] = kMasked;
}

void mask_all(const ProcessRow& p, std::span<const int32_t> ids) {
  for (const int32_t id : ids)
    mask(p, id);
}

/// Only `ids` remain, all equally good.
void force(const ProcessRow& p, std::span<const int32_t> ids) {
  std::fill_n(p.x, p.vocab, kMasked);
  for (const int32_t id : ids) {
    if (p.knows(id)) p.x[id] = 0;
  }
}

/// A window of n tokens whose first n - 1 are the history's last n - 1 bans its own last token.
void mask_repeated_ngrams(const ProcessRow& p) {
  const auto n = static_cast<size_t>(p.row.no_repeat_ngram_size);
  if (n == 0 || p.history.size() < n) return;
  const auto prefix = p.history.last(n - 1);
  for (size_t i = 0; i + n <= p.history.size(); ++i) {
    const auto window = p.history.subspan(i, n);
    if (std::equal(prefix.begin(), prefix.end(), window.begin())) mask(p, window.back());
  }
}

void mask_bad_words(const ProcessRow& p) {
  const auto words = p.list(p.row.bad_words);
  for (size_t i = 0; i < words.size(); i += static_cast<size_t>(words[i]) + 1) {
    const auto word = words.subspan(i + 1, static_cast<size_t>(words[i]));
    const auto prefix = word.first(word.size() - 1);
    if (prefix.size() > p.history.size()) continue;
    if (std::equal(prefix.begin(), prefix.end(), p.history.end() - std::ssize(prefix))) {
      mask(p, word.back());
    }
  }
}

}  // namespace

ProcessRow open_row(const Launch& launch, int64_t l) {
  ProcessRow p;
  p.row = read_sampling_row(launch.in[1].as<int32_t>(), l);
  if (p.row.slot < 0 || (p.row.flags & kSamplingAdjusts) == 0) return p;
  p.vocab = launch.in[0].dim(1);
  p.x = launch.out[0].as<float>() + l * p.vocab;
  p.lists = launch.in[2].as<int32_t>();
  const int64_t capacity = launch.in[3].dim(1);
  DCHECK(p.row.length <= capacity, "a history of ", p.row.length, " tokens");
  p.history = {launch.in[3].as<int32_t>() + p.row.slot * capacity,
               static_cast<size_t>(std::min<int64_t>(p.row.length, capacity))};
  return p;
}

float penalise(const SamplingRow& row, float x, int32_t count) {
  x = x < 0 ? x * row.repetition_penalty : x / row.repetition_penalty;
  if (count == 0) return x;
  return x - (static_cast<float>(count) * row.frequency_penalty + row.presence_penalty);
}

void add_logit_bias(const ProcessRow& p) {
  const auto pairs = p.list(p.row.logit_bias);
  for (size_t i = 0; i + 1 < pairs.size(); i += 2) {
    if (p.knows(pairs[i])) p.x[pairs[i]] += std::bit_cast<float>(pairs[i + 1]);
  }
}

void mask_tokens(const ProcessRow& p) {
  mask_repeated_ngrams(p);
  mask_bad_words(p);
  if (p.new_tokens() < p.row.min_new_tokens) mask_all(p, p.list(p.row.end_ids));
  if (p.row.forced_bos >= 0 && p.row.length == 1) force(p, {&p.row.forced_bos, 1});
  if (p.row.forced_eos.count > 0 && p.row.length == p.row.max_length - 1) {
    force(p, p.list(p.row.forced_eos));
  }
  mask_all(p, p.list(p.row.suppress));
  if (p.row.length == p.row.begin_length) mask_all(p, p.list(p.row.begin_suppress));
}

}  // namespace millrace::ops
