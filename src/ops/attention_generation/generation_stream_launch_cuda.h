// How attention_generation_mma_cuda launches its kernels whose blocks stay.
#pragma once

#include "ops/attention_generation/generation_parts_cuda.cuh"

namespace millrace::ops::generation {

/// Whether the GPU runs them.
bool has_streams();

/// REQUIRES: has_streams(); the op appends and rotates whole heads of 64 or 128 elements, which up
/// to 8 query heads share, without a window; the cache has the type of the queries, or 8 bits; V
/// lies behind K, the scales likewise, all at multiples of 16 bytes; the plan is for Kind::kNarrow.
/// is_long: a sequence is in a higher length class than the first; units may be shared then.
void launch_streams(const Launch& launch, const AttentionArgs& args, const Work& work,
                    ir::DType stored, bool is_long);

/// For units of up to 16 query rows, however many tokens a sequence has. REQUIRES: the same, but
/// any number of query heads may share one; the cache has the type of the queries; the plan is for
/// Kind::kWide.
void launch_wide_streams(const Launch& launch, const AttentionArgs& args, const Work& work);

}  // namespace millrace::ops::generation
