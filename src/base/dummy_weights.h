// Generated weights: what --dummy-weights and test models compute with. A value depends on (seed,
// tensor name, element index) through an integer hash and on name and shape through its scale, so
// that tests and measurements need no stored weights. docs/dummy_weights.md is the specification;
// tools/dummy_weights.py makes the same bits with numpy.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace millrace {

class DummyTensor {
 public:
  /// `name` is the checkpoint's, `shape` as stored there (row-major).
  DummyTensor(uint64_t seed, std::string_view name, std::span<const int64_t> shape);

  /// Element `index` of the flattened tensor.
  float at(int64_t index) const {
    const uint64_t hash = mix(key_ + static_cast<uint64_t>(index) * kIndexStep);
    const auto uniform = static_cast<int32_t>(hash >> 40) - (1 << 23);  // 24 bits, centred
    return center_ + static_cast<float>(uniform) * step_;
  }

  /// Elements [begin, end) into `out`; any split of a tensor over threads gives the same values.
  void fill(int64_t begin, int64_t end, float* out) const;

 private:
  static constexpr uint64_t kIndexStep = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio, odd

  static constexpr uint64_t mix(uint64_t x) {  // the finaliser of SplitMix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }

  uint64_t key_;
  float center_;
  float step_;
};

}  // namespace millrace
