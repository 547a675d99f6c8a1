// The kernels of attention_generation_mma_cuda for up to 16 query rows of a KV head on Hopper, see
// generation_wide_cuda.cuh.
#include "ops/attention_generation/generation_launch_cuda.cuh"
#include "ops/attention_generation/generation_stream_launch_cuda.h"
#include "ops/attention_generation/generation_wide_cuda.cuh"

namespace millrace::ops::generation {
namespace {

/// Grid: the blocks that run at once. maps are of boxes of kTileKeys keys. Both types, of
/// activations and cache alike, in one kernel: they are told apart once.
template <int kSize>
__global__ void __launch_bounds__(Sizes<kSize, 2>::kThreads, (Sizes<kSize, 2>::kBlocks))
    attend_wide_streams(const __grid_constant__ AttentionArgs a, const __grid_constant__ Work work,
                        const __grid_constant__ CacheMaps maps) {
  extern __shared__ __align__(16) std::byte shared[];
  device::let_successor_start();
  const uint32_t past = shared_address_of(shared) % kBoxAlignment;
  std::byte* const aligned = shared + (kBoxAlignment - past) % kBoxAlignment;
  if (threadIdx.x == 0) hopper::prefetch_map(maps.vectors);  // the first tiles would wait for it
  if (a.type == ir::DType::kBF16) {
    WideStream<__nv_bfloat16, kSize>(a, work, maps, aligned).run();
  } else {
    WideStream<__half, kSize>(a, work, maps, aligned).run();
  }
}

template <int kSize>
void launch_size(const Launch& launch, const AttentionArgs& args, Work work) {
  using Streamed = WideStream<__half, kSize>;
  using S = typename Streamed::S;
  constexpr int kShared = Streamed::kSharedBytes + kBoxAlignment;
  constexpr auto* kKernel = attend_wide_streams<kSize>;
  static const bool allowed = device::reserve_shared("attend_wide_streams", kKernel, kShared);
  static_cast<void>(allowed);
  work.partial_rows = partial_rows(launch, args.group, S::kRows);
  device::launch_kernel("attend_wide_streams", *launch.queue,
                        static_cast<unsigned>(work.division.blocks), S::kThreads, kShared, kKernel,
                        args, work, make_maps<S>(args));
}

}  // namespace

void launch_wide_streams(const Launch& launch, const AttentionArgs& args, const Work& work) {
  if (args.head_size == 64) return launch_size<64>(launch, args, work);
  launch_size<128>(launch, args, work);
}

}  // namespace millrace::ops::generation
