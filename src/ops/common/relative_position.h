// The buckets of T5's relative position bias: near keys have one each, farther ones share buckets
// that widen with the logarithm of their distance, and all at max_distance or more share the last.
// Raffel et al.: "Exploring the limits of transfer learning with a unified text-to-text
// transformer", JMLR 2020, section 2.1.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/host_device.h"

namespace millrace::ops {

struct RelativeBuckets {
  int buckets = 32;            // rows of the bias table; even and at least 4 when bidirectional
  int max_distance = 128;      // more than the distances that have buckets of their own
  bool bidirectional = false;  // encoders: the upper half of the table is for later keys

  /// Bucket of a key `relative` = key position - query position away, in [0, buckets). Causal
  /// tables give later keys the bucket of the query's own position.
  MILLRACE_HD int operator()(int64_t relative) const {
    const int side = bidirectional ? buckets / 2 : buckets;
    const bool later = relative > 0;
    if (later && !bidirectional) return 0;
    const int base = later ? side : 0;
    const int64_t distance = later ? relative : -relative;
    const int own = side / 2;  // distances with a bucket of their own
    if (distance < own) return base + static_cast<int>(distance);
    if (distance >= max_distance) return base + side - 1;
    // Where a power of max_distance / own is whole the logarithm may come out just below it.
    constexpr double kRounding = 1e-6;
    const double part = std::log(static_cast<double>(distance) / own) /
                        std::log(static_cast<double>(max_distance) / own) * (side - own);
    const int bucket = own + static_cast<int>(part + kRounding);
    return base + (bucket < side ? bucket : side - 1);
  }

  /// Empty when the numbers make sense, else the reason.
  const char* why_not() const {
    if (bidirectional && buckets % 2 != 0) return "bidirectional buckets must be even in number";
    const int side = bidirectional ? buckets / 2 : buckets;
    if (side < 2) return "there must be at least 2 buckets on each side";
    if (max_distance <= side / 2) return "max_distance must exceed half the buckets of a side";
    return "";
  }
};

}  // namespace millrace::ops
