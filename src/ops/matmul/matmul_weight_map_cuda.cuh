// How the copy engine brings weight rows to shared memory. For .cu files.
#pragma once

#include "device/cuda/tensor_map.h"
#include "ops/common/matmul_job.h"

namespace millrace::ops {

/// In a box of a gated product's weight, so many rows of the gate and as many of up take turns:
/// a thread of a wgmma product, which has the sums of rows r and r + 8, has both of an output.
inline constexpr int kGatedRows = 8;
inline constexpr int kGatedPair = 2 * kGatedRows;

/// Boxes of `box_rows` weight rows and `box_depth` elements of K, 128-byte swizzled. Of a gated
/// product (F a multiple of kGatedRows) it has the dimensions {K, kGatedRows, 2, F / kGatedRows}.
inline CUtensorMap make_weight_map(const MatmulJob& job, int box_rows, int box_depth) {
  constexpr auto kSwizzle = device::Swizzle::k128Bytes;
  if (!job.gated) {
    return device::make_matrix_map(job.weight, job.cols, job.depth, box_rows, box_depth, kSwizzle);
  }
  return device::make_tensor_map(job.weight, {job.depth, kGatedRows, 2, job.cols / kGatedRows},
                                 {job.depth, job.cols * job.depth, kGatedRows * job.depth},
                                 {box_depth, kGatedRows, 2, box_rows / kGatedPair}, kSwizzle);
}

}  // namespace millrace::ops
