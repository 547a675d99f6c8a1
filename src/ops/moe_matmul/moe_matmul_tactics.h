// The tactics of moe_matmul: between its contract (moe_matmul.cc) and its kernels.
#pragma once

#include <span>
#include <string>

#include "ops/moe_matmul/moe_matmul_job.h"
#include "ops/op.h"

namespace millrace::ops {

/// In order of preference, the reference last.
std::span<const Tactic> moe_matmul_tactics();

MoeMatmulJob moe_matmul_job(const Launch& launch);

void moe_matmul_ref(const Launch& launch);

/// Op::exact.
double moe_matmul_exact(const Launch& launch, int64_t index);

void moe_matmul_cuda(const Launch& launch);

std::string moe_matmul_mma_cuda_why_not(const Launch& launch, const device::Properties& device);
int64_t moe_matmul_mma_cuda_workspace(const Launch& launch, const device::Properties& device);
void moe_matmul_mma_cuda(const Launch& launch);

}  // namespace millrace::ops
