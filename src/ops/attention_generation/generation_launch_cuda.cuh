// How attention_generation_mma_cuda launches one of its kernels. For .cu files.
#pragma once

#include <algorithm>
#include <type_traits>

#include "device/cuda/occupancy.h"
#include "ops/attention_generation/generation_kernel_cuda.cuh"

namespace millrace::ops::generation {

/// Query rows of a partial result; even, so that the next one is aligned.
inline int partial_rows(const Launch& launch, int group, int unit_rows) {
  const int64_t rows = launch.in[0].dim(0) * group;
  return static_cast<int>(std::min<int64_t>((rows + 1) / 2 * 2, unit_rows));
}

/// Launches a kernel of these sizes whose blocks take the plan's items.
template <typename S, void (*kKernel)(AttentionArgs, Work)>
void launch_items(const Launch& launch, const AttentionArgs& args, Work work) {
  static const bool allowed =
      device::reserve_shared("attend_generation", kKernel, S::shared_bytes(S::kRows));
  static_cast<void>(allowed);
  work.partial_rows = partial_rows(launch, args.group, S::kRows);
  const int sequences =
      std::max(work.lengths.sequences, div_up(work.division.blocks, args.kv_heads));
  const dim3 grid(static_cast<unsigned>(args.kv_heads), static_cast<unsigned>(sequences));
  device::launch_kernel("attend_generation", *launch.queue, grid, S::kThreads,
                        static_cast<size_t>(S::shared_bytes(work.partial_rows)), kKernel, args,
                        work);
}

/// T: void for one kernel of both types.
template <typename T, int kSize, int kColumnTiles>
void launch_kernel(const Launch& launch, const AttentionArgs& args, const Work& work) {
  using Stored = std::conditional_t<std::is_void_v<T>, uint16_t, T>;
  launch_items<Sizes<kSize, kColumnTiles>, attend_generation<T, kSize, kColumnTiles, Stored>>(
      launch, args, work);
}

/// Heads for which there is a kernel that reads 8 bits.
constexpr bool can_widen(int head_size) {
  return head_size == 64 || head_size == 128 || head_size == 256;
}

/// The kernel for a cache of int8 or fp8. REQUIRES: can_widen(head_size).
void launch_widening(const Launch& launch, const AttentionArgs& args, const Work& work, Kind kind);

}  // namespace millrace::ops::generation
