// The ways to run attention_context, one per file.
#pragma once

#include "ops/common/attention_ref.h"
#include "ops/op.h"

namespace millrace::ops {

void attention_context_ref(const Launch& launch);
void attention_context_avx2(const Launch& launch);
void attention_context_avx512(const Launch& launch);
void attention_context_cuda(const Launch& launch);

/// Prompts on the tensor cores of Hopper GPUs; hands on to attention_context_cuda where the cache
/// has another type than q or blocks of fewer than 8 tokens.
void attention_context_wgmma_cuda(const Launch& launch);
std::string attention_context_wgmma_why_not(const Launch& launch,
                                            const device::Properties& properties);

/// The part of attention_context_cuda that runs on tensor cores; false where types or sizes do not
/// fit, and nothing was launched. `longest` is the largest query length.
bool attention_context_mma(const Launch& launch, const AttentionShape& shape, int sequences,
                           int longest);

}  // namespace millrace::ops
