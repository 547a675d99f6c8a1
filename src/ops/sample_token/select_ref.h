// The specification of which tokens a draw may choose, by sorting.
#pragma once

#include <cstdint>
#include <span>

#include "ops/common/sampling_row.h"

namespace millrace::ops {

/// Memory for one row, V elements each.
struct SelectScratch {
  float* scaled;   // s = x / temperature
  float* weight;   // w
  int32_t* order;  // tokens, those kept first
};

/// The tokens that pass top_k, top_p, min_p and typical_p, in the order of tokens, in
/// `scratch.order`. REQUIRES: no NaN; the largest x and x / temperature are finite.
std::span<const int32_t> select_ref(const float* x, int64_t vocab, const SamplingRow& row,
                                    const SelectScratch& scratch);

}  // namespace millrace::ops
