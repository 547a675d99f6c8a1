// The CUDA tactics of matmul. Host code. NAME_gates, NAME_norms: whether the kernel can do this
// launch, which is gated, or norms x; those without it never get one. NAME_activates: likewise of
// an activation; those without it do all (matmul_composed_cuda.h).
#pragma once

#include <span>
#include <string>

#include "ops/matmul/matmul_handed_norm.h"
#include "ops/op.h"

namespace millrace::ops {

/// Any types and sizes, on FMA units.
void matmul_cuda(const Launch& launch);

/// Up to 16 rows on FMA units, the weight streamed once for every four: any types, exact products.
std::string matmul_rows_cuda_why_not(const Launch& launch, const device::Properties& device);
void matmul_rows_cuda(const Launch& launch);

/// Why tensor cores cannot multiply these types and this K; empty if they can.
std::string mma_cuda_why_not(const Launch& launch);

/// One row on FMA units, beside other kernels: x and weight both bf16 or both f16, exact products.
std::string matmul_row_cuda_why_not(const Launch& launch, const device::Properties& device);
void matmul_row_cuda(const Launch& launch);

/// Up to 4 rows on tensor cores, beside other kernels: x and weight both bf16 or both f16.
std::string matmul_gemv_cuda_why_not(const Launch& launch, const device::Properties& device);
bool matmul_gemv_cuda_gates(const Launch& launch);
bool matmul_gemv_cuda_norms(const Launch& launch);
void matmul_gemv_cuda(const Launch& launch);

/// Up to 16 rows on tensor cores, the weight streamed once: x and weight both bf16 or both f16.
std::string matmul_rows_mma_cuda_why_not(const Launch& launch, const device::Properties& device);
void matmul_rows_mma_cuda(const Launch& launch);

/// Any number of rows on Hopper's tensor cores: x and weight both bf16 or both f16.
std::string matmul_wgmma_cuda_why_not(const Launch& launch, const device::Properties& device);
bool matmul_wgmma_cuda_gates(const Launch& launch);
void matmul_wgmma_cuda(const Launch& launch);

/// Up to 128 rows, K cut into pieces that the blocks of a cluster add up: x and weight both bf16 or
/// both f16.
std::string matmul_split_cuda_why_not(const Launch& launch, const device::Properties& device);
void matmul_split_cuda(const Launch& launch);
/// Likewise, in bf16, without a norm of its own; hands one on, or has one handed on.
void matmul_split_handed_cuda(const Launch& launch, const HandedNorm& norm);
/// Parts of the outputs whose squares it sums (HandedNorm); 0: it cannot hand a norm on.
int matmul_split_parts(const Launch& launch);

/// Up to 64 rows by TMA and wgmma, at the speed of memory: x and weight both bf16 or both f16.
std::string matmul_stream_cuda_why_not(const Launch& launch, const device::Properties& device);
void matmul_stream_cuda(const Launch& launch);

/// Up to 32 rows by TMA and wgmma, at the speed of memory: x and weight both bf16 or both f16.
/// `place`: how it is cut; 0 is expected to be the fastest.
std::string matmul_swap_cuda_why_not(const Launch& launch, const device::Properties& device,
                                     int place);
int64_t matmul_swap_cuda_workspace(const Launch& launch, const device::Properties& device);
bool matmul_swap_cuda_gates(const Launch& launch);
void matmul_swap_cuda(const Launch& launch, int place);
/// As of matmul_split_cuda.
void matmul_swap_handed_cuda(const Launch& launch, int place, const HandedNorm& norm);
int matmul_swap_parts(const Launch& launch);

/// Consecutive products of few rows in one launch on Hopper: x and weight both bf16 or both f16.
std::string matmul_chain_cuda_why_not(const Launch& launch, const device::Properties& device);
void matmul_chain_cuda(std::span<const Launch> launches);

/// Consecutive products of 5 to 128 rows, the norms between them in their launches: all in bf16.
std::string matmul_series_cuda_why_not(const Launch& launch, const device::Properties& device);
int64_t matmul_series_cuda_workspace(const Launch& launch, const device::Properties& device);
void matmul_series_cuda(std::span<const Launch> launches);

/// Any number of rows on tensor cores: x and weight both bf16 or both f16.
std::string matmul_mma_cuda_why_not(const Launch& launch, const device::Properties& device);
void matmul_mma_cuda(const Launch& launch);

/// Any number of rows by cuBLASLt, where it is installed: types alike, no activation in front of a
/// residual.
/// `place`: of the library's proposals for the product, 0 the first.
std::string matmul_cublaslt_why_not(const Launch& launch, const device::Properties& device,
                                    int place);
bool matmul_cublaslt_activates(const Launch& launch);
int64_t matmul_cublaslt_workspace(const Launch& launch, const device::Properties& device);
void matmul_cublaslt(const Launch& launch, int place);

}  // namespace millrace::ops
