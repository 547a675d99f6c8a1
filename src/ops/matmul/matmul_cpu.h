// How matmul runs: between its contract (matmul.cc) and its kernels.
#pragma once

#include <span>

#include "ops/common/matmul_job.h"
#include "ops/op.h"

namespace millrace::ops {

/// In order of preference, the reference last.
std::span<const Tactic> matmul_tactics();

/// The launch as plain pointers and sizes.
MatmulJob matmul_job(const Launch& launch);

/// The norm in front of a product.
struct MatmulNorm {
  const void* weight = nullptr;  // [K], or null where x is multiplied as it is
  ir::DType type = ir::DType::kF32;
  float eps = 0, offset = 0;
};

MatmulNorm matmul_norm(const Launch& launch);

int64_t matmul_ref_workspace(const Launch& launch, const device::Properties& device);
void run_matmul_ref(const Launch& launch);

/// Op::exact.
double matmul_exact(const Launch& launch, int64_t index);

}  // namespace millrace::ops
