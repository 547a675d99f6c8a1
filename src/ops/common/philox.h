// Philox4x32-10: random bits as a function of a counter and a key, the same on every device.
// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>

#include "base/host_device.h"

namespace millrace::ops {

MILLRACE_HD inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter,
                                                  std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xd2511f53u, kMultiplier1 = 0xcd9e8d57u;
  constexpr uint32_t kWeyl0 = 0x9e3779b9u, kWeyl1 = 0xbb67ae85u;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key = {key[0] + kWeyl0, key[1] + kWeyl1};
  }
  return counter;
}

/// What a random number is for: each use has a stream of its own.
enum class RandomUse : uint32_t { kToken = 0 };

/// 64 random bits of a request: for its output `output_index`, at `position` of the sequence.
MILLRACE_HD inline uint64_t request_random(uint64_t seed, int32_t output_index, int64_t position,
                                           RandomUse use) {
  const auto at = static_cast<uint64_t>(position);
  const auto bits = philox({static_cast<uint32_t>(at), static_cast<uint32_t>(at >> 32),
                            static_cast<uint32_t>(output_index), static_cast<uint32_t>(use)},
                           {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return uint64_t{bits[1]} << 32 | bits[0];
}

/// random * end / 2^64, rounded down: from 64 random bits to [0, end).
MILLRACE_HD inline uint64_t scale_random(uint64_t random, uint64_t end) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Wide>(random) * end >> 64);
}

}  // namespace millrace::ops
