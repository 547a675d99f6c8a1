// For tests and cases of the sampling ops.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "ops/common/sampling_row.h"
#include "ops/op.h"

namespace millrace::ops {

/// The logits of tests/data/sampling/make_sampling_goldens.py.
inline std::vector<float> golden_logits(int64_t seed, int64_t vocab, double spread, int grid) {
  std::vector<float> logits;
  for (int64_t i = 0; i < vocab; ++i) {
    uint64_t z = static_cast<uint64_t>(seed * 0x1000000 + i) + 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    int64_t sum = 0;
    for (int part = 0; part < 4; ++part)
      sum += static_cast<int64_t>(z >> (16 * part) & 0x3fff);
    double value = static_cast<double>(sum - 32768) / 32768 * spread;
    if (grid > 0) value = std::floor(value * (1 << grid)) / (1 << grid);
    logits.push_back(static_cast<float>(value));
  }
  return logits;
}

inline std::vector<int32_t> row_words(const std::vector<SamplingRow>& rows) {
  std::vector<int32_t> words(rows.size() * kSamplingRowWords);
  if (!words.empty()) std::memcpy(words.data(), rows.data(), words.size() * sizeof(int32_t));
  return words;
}

/// The names of the CPU tactics of an op that this machine can run.
inline std::vector<std::string> cpu_tactics(std::string_view op) {
  const auto device = device::make_cpu_device(1);
  std::vector<std::string> names;
  for (const Tactic& tactic : find_op(op)->tactics) {
    if (tactic.device != device::Kind::kCpu) continue;
    const bool can_run =
        tactic.why_not == nullptr || tactic.why_not(Launch(), device->properties()).empty();
    if (can_run) names.emplace_back(tactic.name);
  }
  return names;
}

}  // namespace millrace::ops
