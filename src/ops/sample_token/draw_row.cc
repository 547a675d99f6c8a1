// Most tokens are out of the question, and the maxima of blocks tell in which blocks the others
// are. Those are gathered, in the order of tokens, and each limit then shortens the list. Where a
// limit is a mass (top_p, typical_p), the threshold is found by a radix search: at most three
// histograms over the ordered bits of the key, each narrowing the range to one of 2048 bins.
#include "ops/sample_token/draw_row.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>

#include "ops/common/sampling_math.h"
#include "ops/sample_token/sample_token_io.h"

namespace millrace::ops {
namespace {

constexpr float kInfinity = __builtin_inff();

uint64_t units_of(const Candidates& c) {
  return std::accumulate(c.weight, c.weight + c.count, uint64_t{0},
                         [](uint64_t sum, float w) { return sum + weight_units(w); });
}

/// Shortens the list to those for which keep(i) holds.
template <typename Keep>
void filter(Candidates* c, const Keep& keep) {
  int64_t kept = 0;
  for (int64_t i = 0; i < c->count; ++i) {
    if (!keep(i)) continue;
    c->scaled[kept] = c->scaled[i];
    c->weight[kept] = c->weight[i];
    c->token[kept] = c->token[i];
    ++kept;
  }
  c->count = kept;
}

/// All tokens with s >= bound; their weights are not set.
void gather(const DrawRow& d, float bound, Candidates* c) {
  c->count = 0;
  for (int64_t begin = 0; begin < d.vocab; begin += kSamplingBlock) {
    if (d.maxima[begin / kSamplingBlock] / d.row.temperature < bound) continue;
    const int64_t end = std::min<int64_t>(d.vocab, begin + kSamplingBlock);
    for (int64_t t = begin; t < end; ++t) {
      const float s = d.x[t] / d.row.temperature;
      c->scaled[c->count] = s;
      c->token[c->count] = static_cast<int32_t>(t);
      c->count += s >= bound ? 1 : 0;
    }
  }
}

struct Threshold {
  uint32_t key = 0;
  uint64_t below = 0;  // units of the smaller keys
};

/// The smallest key at which the units of the keys up to it, and `below`, exceed `limit`.
/// REQUIRES: there is one.
template <typename KeyOf>
Threshold find_threshold(const Candidates& c, uint64_t below, uint64_t limit, const KeyOf& key_of) {
  constexpr int kBits = 11;
  constexpr uint32_t kBins = 1 << kBits;
  uint32_t low = ~0u, high = 0;
  for (int64_t i = 0; i < c.count; ++i) {
    low = std::min(low, key_of(i));
    high = std::max(high, key_of(i));
  }
  Threshold found{low, below};
  for (int shift = std::bit_width(high - low); shift > 0;) {
    const int above = shift;  // keys at work: those that differ from found.key below this bit
    shift = std::max(0, shift - kBits);
    uint64_t bins[kBins] = {};
    for (int64_t i = 0; i < c.count; ++i) {
      const uint32_t distance = key_of(i) - found.key;
      if (uint64_t{distance} >> above == 0) bins[distance >> shift] += weight_units(c.weight[i]);
    }
    uint32_t bin = 0;
    while (bin < kBins - 1 && found.below + bins[bin] <= limit)
      found.below += bins[bin++];
    found.key += bin << shift;
  }
  return found;
}

void keep_top_k(const DrawRow& d, Candidates* c) {
  const int64_t k = d.row.top_k;
  const int64_t blocks = (d.vocab + kSamplingBlock - 1) / kSamplingBlock;
  float bound = -kInfinity;
  if (k <= blocks) {  // k blocks hold a token each that is as large as the k-th largest maximum
    std::copy_n(d.maxima, blocks, c->weight);
    std::nth_element(c->weight, c->weight + k - 1, c->weight + blocks, std::greater<>());
    bound = c->weight[k - 1] / d.row.temperature;
  }
  gather(d, bound, c);
  std::copy_n(c->scaled, c->count, c->weight);
  std::nth_element(c->weight, c->weight + k - 1, c->weight + c->count, std::greater<>());
  const float limit = c->weight[k - 1];
  filter(c, [&](int64_t i) { return c->scaled[i] >= limit; });
}

/// `total`: the units of all tokens that compete, of which the list has those with the largest s.
/// False when the list does not reach down to the threshold.
bool keep_top_p(const DrawRow& d, uint64_t total, Candidates* c) {
  const uint64_t limit = units_to_drop(d.row.top_p, total);
  const uint64_t outside = total - units_of(*c);
  if (outside > limit) return false;
  const auto key_of = [&](int64_t i) { return ordered_key(c->scaled[i]); };
  const Threshold found = find_threshold(*c, outside, limit, key_of);
  uint64_t room = limit - found.below;  // equals are dropped one by one, lowest token first
  filter(c, [&](int64_t i) {
    const uint32_t key = key_of(i);
    if (key != found.key) return key > found.key;
    const uint64_t units = weight_units(c->weight[i]);
    if (units > room) return true;
    room -= units;
    return false;
  });
  return true;
}

void keep_typical(const DrawRow& d, Candidates* c) {
  uint64_t surprise = 0;
  for (int64_t i = 0; i < c->count; ++i)
    surprise += surprise_units(c->scaled[i] - d.max, c->weight[i]);
  const uint64_t total = units_of(*c);
  const float mean = mean_of_units(surprise, total);
  const auto key_of = [&](int64_t i) {
    return std::bit_cast<uint32_t>(std::fabs(mean - (c->scaled[i] - d.max)));
  };
  const uint64_t enough = units_to_keep(d.row.typical_p, total);
  const uint32_t limit = find_threshold(*c, 0, enough - 1, key_of).key;
  filter(c, [&](int64_t i) { return key_of(i) <= limit; });
}

/// Gathers the tokens that top_k and top_p keep, or of which min_p and typical_p choose.
void gather_by_mass(const DrawRow& d, const SamplingKernels& kernels, Candidates* c) {
  const auto gather_within = [&](float distance) {
    gather(d, d.max - distance, c);
    kernels.weights(c->scaled, c->count, d.max, c->weight);
  };
  if (d.limits_k()) {
    keep_top_k(d, c);
    kernels.weights(c->scaled, c->count, d.max, c->weight);
    if (d.row.top_p < 1) keep_top_p(d, units_of(*c), c);
  } else if (d.row.top_p < 1) {
    const int64_t chunks = (d.vocab + SampleTokenWork::kChunk - 1) / SampleTokenWork::kChunk;
    const uint64_t total = std::accumulate(d.sums, d.sums + chunks, uint64_t{0});
    // Within 30 are all tokens that weigh anything: the last try succeeds. Few tokens decide most
    // rows, and a try costs what it gathers.
    for (float distance = 4; distance <= 30; distance += 2) {
      gather_within(distance);
      if (keep_top_p(d, total, c)) break;
    }
  } else {
    // The margin is wider than any rounding.
    gather_within(d.row.min_p > 0 ? std::min(30.0f, 0.01f - std::log(d.row.min_p)) : 30.0f);
  }
}

int32_t draw_candidate(const DrawRow& d, const Candidates& c) {
  const uint64_t limit = draw_units(d.row, units_of(c));
  uint64_t sum = 0;
  for (int64_t i = 0; i < c.count; ++i) {
    sum += weight_units(c.weight[i]);
    if (sum > limit) return c.token[i];
  }
  return c.token[c.count - 1];
}

/// From all tokens: the chunk by the sums known, the block in it, the token in that.
int32_t draw_unlimited(const DrawRow& d, const SamplingKernels& kernels) {
  const int64_t chunks = (d.vocab + SampleTokenWork::kChunk - 1) / SampleTokenWork::kChunk;
  uint64_t rest = draw_units(d.row, std::accumulate(d.sums, d.sums + chunks, uint64_t{0}));
  int64_t chunk = 0;
  while (rest >= d.sums[chunk])
    rest -= d.sums[chunk++];
  int64_t t = chunk * SampleTokenWork::kChunk;
  for (;; t += kSamplingBlock) {
    const int64_t count = std::min<int64_t>(kSamplingBlock, d.vocab - t);
    const uint64_t sum = kernels.sum_units(d.x + t, count, d.row.temperature, d.max);
    if (rest < sum) break;
    rest -= sum;
  }
  for (;; ++t) {
    const uint64_t units = weight_units(sampling_exp(d.x[t] / d.row.temperature - d.max));
    if (rest < units) return static_cast<int32_t>(t);
    rest -= units;
  }
}

}  // namespace

int32_t draw_row(const DrawRow& d, const SamplingKernels& kernels, Candidates c) {
  if (d.is_unlimited()) return draw_unlimited(d, kernels);
  gather_by_mass(d, kernels, &c);
  if (d.row.min_p > 0) {
    filter(&c, [&](int64_t i) { return c.weight[i] >= d.row.min_p; });
  }
  if (d.row.typical_p < 1) keep_typical(d, &c);
  return draw_candidate(d, c);
}

}  // namespace millrace::ops
