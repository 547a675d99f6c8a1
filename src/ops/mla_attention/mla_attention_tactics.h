// The tactics of mla_attention and what they share.
#pragma once

#include <span>
#include <string>

#include "ops/common/mla_shape.h"
#include "ops/common/sequence_rows.h"
#include "ops/mla_attention/mla_attention.h"

namespace millrace::ops {

struct MlaInputs {
  static constexpr size_t kQ = 0, kSequence = 1, kCache = kSequence + kNumSequenceInputs,
                          kKvB = kCache + 1, kCount = kKvB + 1;
};

inline MlaShape mla_shape(const MlaAttention& a) {
  return {a.heads, a.nope_size, a.rope_size, a.latent_size, a.v_size};
}

/// The sequences of a launch as those of this phase see them: with beams, generation finds its past
/// in the blocks of others. A prompt is in its own.
inline SequenceRows mla_sequences(const Launch& launch, RequestType phase) {
  SequenceRows rows(launch.in, MlaInputs::kSequence);
  if (phase == RequestType::kGeneration && launch.attrs<MlaAttention>().beams > 0) {
    rows.follow_beams(launch.in.last(kNumBeamInputs));
  }
  return rows;
}

void mla_attention_ref(const Launch& launch);
/// Op::exact.
double mla_attention_exact(const Launch& launch, int64_t index);

void mla_attention_avx2(const Launch& launch);
void mla_attention_avx512(const Launch& launch);
/// What the vector tactics cannot do; empty when they can.
std::string mla_attention_simd_why_not(const Launch& launch);
int64_t mla_attention_simd_workspace(const Launch& launch, const device::Properties& properties);

/// The absorbed form for all rows, on FMA units.
void mla_attention_cuda(const Launch& launch);
std::string mla_attention_cuda_why_not(const Launch& launch, const device::Properties& properties);
/// Likewise for the rows of the sequences from `first` on, in a step that is not captured.
/// `query_lengths`: how many rows each has, known to the host.
void mla_attention_rows_cuda(const Launch& launch, int first,
                             std::span<const int32_t> query_lengths);

/// The absorbed form for all rows, on tensor cores. Hands all on to mla_attention_cuda where sizes
/// or types are others, which why_not says but for the cache's.
void mla_attention_absorbed_cuda(const Launch& launch);
std::string mla_attention_absorbed_cuda_why_not(const Launch& launch,
                                                const device::Properties& properties);
int64_t mla_attention_absorbed_cuda_workspace(const Launch& launch,
                                              const device::Properties& properties);
/// As mla_attention_rows_cuda, which does it where this one cannot. With this one's workspace.
void mla_attention_absorbed_rows_cuda(const Launch& launch, int first,
                                      std::span<const int32_t> query_lengths);

/// Prompts expanded, on the tensor cores of Hopper GPUs; tokens in generation, sequences too long
/// for the workspace, and all where the cache has another type than q, by
/// mla_attention_absorbed_cuda.
void mla_attention_expanded_cuda(const Launch& launch);
std::string mla_attention_expanded_cuda_why_not(const Launch& launch,
                                                const device::Properties& properties);
int64_t mla_attention_expanded_cuda_workspace(const Launch& launch,
                                              const device::Properties& properties);

}  // namespace millrace::ops
