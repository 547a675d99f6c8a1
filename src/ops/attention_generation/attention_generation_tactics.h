// The ways to run attention_generation, one per file.
#pragma once

#include <string>

#include "ops/op.h"

namespace millrace::ops {

void attention_generation_ref(const Launch& launch);
void attention_generation_avx2(const Launch& launch);
void attention_generation_avx512(const Launch& launch);
void attention_generation_cuda(const Launch& launch);
int64_t attention_generation_cuda_workspace(const Launch& launch, const device::Properties&);
void attention_generation_mma_cuda(const Launch& launch);
std::string attention_generation_mma_cuda_why_not(const Launch& launch, const device::Properties&);
int64_t attention_generation_mma_cuda_workspace(const Launch& launch,
                                                const device::Properties& properties);
void attention_generation_cluster_cuda(const Launch& launch);
std::string attention_generation_cluster_cuda_why_not(const Launch& launch,
                                                      const device::Properties& properties);

}  // namespace millrace::ops
