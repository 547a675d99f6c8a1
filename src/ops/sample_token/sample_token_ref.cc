#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/common/sampling_math.h"
#include "ops/sample_token/sample_token_io.h"
#include "ops/sample_token/select_ref.h"

namespace millrace::ops {
namespace {

using Tokens = std::span<int32_t>;

uint64_t units_of(Tokens kept, const float* weight) {
  return std::accumulate(kept.begin(), kept.end(), uint64_t{0},
                         [&](uint64_t sum, int32_t t) { return sum + weight_units(weight[t]); });
}

/// REQUIRES: `kept` ascends in s.
Tokens keep_top_k(Tokens kept, int32_t k, const float* s) {
  if (k <= 0 || k >= std::ssize(kept)) return kept;
  const float limit = s[kept[kept.size() - static_cast<size_t>(k)]];
  const auto first =
      std::find_if(kept.begin(), kept.end(), [&](int32_t t) { return s[t] >= limit; });
  return kept.subspan(static_cast<size_t>(first - kept.begin()));
}

/// REQUIRES: `kept` ascends in (s, t).
Tokens keep_top_p(Tokens kept, float top_p, const float* weight) {
  if (top_p >= 1) return kept;
  const uint64_t limit = units_to_drop(top_p, units_of(kept, weight));
  uint64_t sum = 0;
  size_t first = 0;
  while ((sum += weight_units(weight[kept[first]])) <= limit)
    ++first;
  return kept.subspan(first);
}

Tokens keep_min_p(Tokens kept, float min_p, const float* weight) {
  const auto end =
      std::remove_if(kept.begin(), kept.end(), [&](int32_t t) { return weight[t] < min_p; });
  return kept.first(static_cast<size_t>(end - kept.begin()));
}

Tokens keep_typical(Tokens kept, float mass, float max, const SelectScratch& scratch) {
  if (mass >= 1) return kept;
  uint64_t surprise = 0;
  for (const int32_t t : kept)
    surprise += surprise_units(scratch.scaled[t] - max, scratch.weight[t]);
  const uint64_t total = units_of(kept, scratch.weight);
  const float mean = mean_of_units(surprise, total);
  const auto distance = [&](int32_t t) { return std::fabs(mean - (scratch.scaled[t] - max)); };
  std::sort(kept.begin(), kept.end(),
            [&](int32_t a, int32_t b) { return distance(a) < distance(b); });
  const uint64_t enough = units_to_keep(mass, total);
  uint64_t sum = 0;
  size_t last = 0;
  while ((sum += weight_units(scratch.weight[kept[last]])) < enough)
    ++last;
  const float limit = distance(kept[last]);
  const auto end =
      std::find_if(kept.begin(), kept.end(), [&](int32_t t) { return distance(t) > limit; });
  return kept.first(static_cast<size_t>(end - kept.begin()));
}

SamplingStatus status_of(const float* x, int64_t vocab, float temperature) {
  if (std::any_of(x, x + vocab, [](float v) { return std::isnan(v); })) return kSamplingNotFinite;
  const float max = *std::max_element(x, x + vocab);
  return max < 0 && std::isinf(max) ? kSamplingNoCandidate : status_of_max(max / temperature);
}

int32_t draw(const float* x, int64_t vocab, const SamplingRow& row, const SelectScratch& scratch) {
  const auto kept = select_ref(x, vocab, row, scratch);
  uint64_t total = 0;
  for (const int32_t t : kept)
    total += weight_units(scratch.weight[t]);
  const uint64_t limit = draw_units(row, total);
  uint64_t sum = 0;
  for (const int32_t t : kept) {
    sum += weight_units(scratch.weight[t]);
    if (sum > limit) return t;
  }
  return kept.back();
}

}  // namespace

std::span<const int32_t> select_ref(const float* x, int64_t vocab, const SamplingRow& row,
                                    const SelectScratch& scratch) {
  const float max = *std::max_element(x, x + vocab) / row.temperature;
  for (int64_t t = 0; t < vocab; ++t) {
    scratch.scaled[t] = x[t] / row.temperature;
    scratch.weight[t] = sampling_exp(scratch.scaled[t] - max);
  }
  Tokens kept(scratch.order, static_cast<size_t>(vocab));
  std::iota(kept.begin(), kept.end(), 0);
  std::sort(kept.begin(), kept.end(), [&](int32_t a, int32_t b) {
    const float sa = scratch.scaled[a], sb = scratch.scaled[b];
    return sa < sb || (sa == sb && a < b);
  });
  kept = keep_top_k(kept, row.top_k, scratch.scaled);
  kept = keep_top_p(kept, row.top_p, scratch.weight);
  kept = keep_min_p(kept, row.min_p, scratch.weight);
  kept = keep_typical(kept, row.typical_p, max, scratch);
  std::sort(kept.begin(), kept.end());
  return kept;
}

void sample_token_ref(const Launch& launch) {
  const SampleTokenIo io(launch);
  auto* floats = static_cast<float*>(launch.workspace);
  const SelectScratch scratch{floats, floats + io.vocab,
                              reinterpret_cast<int32_t*>(floats + 2 * io.vocab)};
  for (int64_t l = 0; l < io.count; ++l) {
    const SamplingRow row = io.row(l);
    if (row.slot < 0) {
      io.put(row, l, 0, kSamplingOk);
      continue;
    }
    const float* x = io.logits_of(row, l);
    const bool draws = (row.flags & kSamplingDraws) != 0;
    const SamplingStatus status = status_of(x, io.vocab, draws ? row.temperature : 1);
    int32_t token = 0;
    if (status == kSamplingOk) {
      token = draws ? draw(x, io.vocab, row, scratch)
                    : static_cast<int32_t>(std::max_element(x, x + io.vocab) - x);
    }
    io.put(row, l, token, status);
  }
}

}  // namespace millrace::ops
