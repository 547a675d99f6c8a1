// Copies of rows or pieces of rows, whatever their type: units of 16 bytes, or of one element.
#pragma once

#include "ops/common/vector_access_cuda.cuh"

namespace millrace::ops {

inline constexpr int kCopyThreads = 128;

/// Row r of the output is `out_width` units of row index[r] (r, if `index` is null) of the input,
/// from unit `begin`.
template <typename Unit>
__global__ void __launch_bounds__(kCopyThreads)
    copy_rows_kernel(const Unit* in, const int32_t* index, Unit* out, int64_t in_width,
                     int64_t out_width, int64_t begin) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t column = int64_t{blockIdx.y} * kCopyThreads + threadIdx.x;
  if (column >= out_width) return;
  const int64_t row = index == nullptr ? int64_t{blockIdx.x} : int64_t{index[blockIdx.x]};
  out[int64_t{blockIdx.x} * out_width + column] = in[row * in_width + begin + column];
}

/// Elements of a row [T, ...].
inline int64_t row_width(const Tensor& tensor) {
  int64_t width = 1;
  for (int i = 1; i < tensor.rank; ++i)
    width *= tensor.dim(i);
  return width;
}

/// Input 0 [T, N] to output 0 [L, E]: columns from `begin`; rows as in `index`, or all if null.
inline void copy_rows_cuda(const Launch& launch, const char* name, const int32_t* index,
                           int64_t begin) {
  const Tensor& in = launch.in[0];
  const Tensor& out = launch.out[0];
  if (out.count() == 0) return;
  const int64_t size = ir::dtype_size(in.dtype);
  const auto start = [&]<typename Unit>(Unit) {
    const int64_t unit = sizeof(Unit);
    const int64_t width = row_width(out) * size / unit;
    const dim3 grid(static_cast<unsigned>(out.dim(0)), blocks_for(width, kCopyThreads));
    device::launch_kernel(name, *launch.queue, grid, dim3(kCopyThreads), 0, copy_rows_kernel<Unit>,
                          in.as<Unit>(), index, out.as<Unit>(), row_width(in) * size / unit, width,
                          begin * size / unit);
  };
  const bool whole = row_width(in) * size % 16 == 0 && row_width(out) * size % 16 == 0 &&
                     begin * size % 16 == 0 && aligned_to_16(in.as<char>(), out.as<char>());
  if (whole) {
    start(uint4{});
  } else if (size == 4) {
    start(uint32_t{});
  } else {
    start(uint16_t{});
  }
}

}  // namespace millrace::ops
