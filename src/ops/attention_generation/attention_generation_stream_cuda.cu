// The kernels of attention_generation_mma_cuda for one token of each sequence on Hopper, see
// generation_stream_cuda.cuh.
#include <algorithm>

#include "ops/attention_generation/generation_launch_cuda.cuh"
#include "ops/attention_generation/generation_stream_cuda.cuh"
#include "ops/attention_generation/generation_stream_launch_cuda.h"

namespace millrace::ops::generation {
namespace {

/// Unit after unit as in the other kernels: sequences have several tokens.
template <typename T, int kSize, typename Stored, typename Exchange>
__device__ void run_units(const AttentionArgs& a, const Work& work, Exchange& exchange,
                          std::byte* shared) {
  const auto heads = static_cast<unsigned>(a.kv_heads);
  const unsigned units = static_cast<unsigned>(work.lengths.sequences) * heads;
  for (unsigned unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const WorkItem item = unit_item(work.division, work.lengths, unit / heads, unit % heads);
    if (item.has_work == 0) {
      device::wait_for_predecessor();
      continue;
    }
    const Shares shares(item.tiles, item.sharers);
    Kernel<T, kSize, 1, Stored>(a, work, shares, exchange, shared).run(item);
  }
}

/// Grid: the blocks that run at once. maps are of boxes of kTileKeys keys.
template <typename T, int kSize, typename Stored, bool kShares>
__global__ void __launch_bounds__(Sizes<kSize, 1>::kThreads, Sizes<kSize, 1>::kBlocks)
    attend_streams(const __grid_constant__ AttentionArgs a, const __grid_constant__ Work work,
                   const __grid_constant__ CacheMaps maps) {
  using S = Sizes<kSize, 1, static_cast<int>(sizeof(Stored))>;
  extern __shared__ __align__(16) std::byte shared[];
  __shared__ Exchange<S::kRows, S::kWarps> exchange;
  device::let_successor_start();
  const uint32_t past = shared_address_of(shared) % kBoxAlignment;
  Stream<T, kSize, Stored, kShares> stream(a, work, maps,
                                           shared + (kBoxAlignment - past) % kBoxAlignment);
  if (threadIdx.x == 0) {  // the first tiles would wait for them
    hopper::prefetch_map(maps.vectors);
    if constexpr (kHasScale<Stored>) hopper::prefetch_map(maps.scales);
  }
  stream.prefetch_tables();
  // Before it is known whether the launch has streams: the loads are on their way together.
  const auto now = stream.find(blockIdx.x), next = stream.find(blockIdx.x + gridDim.x);
  WorkItem item{};
  if constexpr (kShares) {
    item = load_shared_item(work);
  } else {  // no more than what streams have to know
    item.unit_blocks = load_here(&work.items[blockIdx.x].unit_blocks);
    item.one_token = load_here(&work.items[blockIdx.x].one_token);
  }
  stream.look_up_first(now, next);
  if (item.one_token != 0 && (item.unit_blocks != 0 || (kShares && item.has_work != 0))) {
    stream.run(item);
    return;
  }
  if constexpr (!kShares) item = load_shared_item(work);
  if (item.unit_blocks != 0) {
    run_units<T, kSize, Stored>(a, work, exchange, shared);
    return;
  }
  if (item.has_work == 0) {
    if (item.sharer == 0) device::wait_for_predecessor();
    return;
  }
  const Shares shares(item.tiles, item.sharers);
  Kernel<T, kSize, 1, Stored>(a, work, shares, exchange, shared).run(item);
}

template <typename T, int kSize, typename Stored, bool kShares>
void launch_kind(const Launch& launch, const AttentionArgs& args, Work work) {
  using Streamed = Stream<T, kSize, Stored, kShares>;
  using S = Sizes<kSize, 1, static_cast<int>(sizeof(Stored))>;
  constexpr int kShared =
      std::max(S::shared_bytes(S::kRows), Streamed::kSharedBytes + kBoxAlignment);
  constexpr auto* kKernel = attend_streams<T, kSize, Stored, kShares>;
  static const bool allowed = device::reserve_shared("attend_streams", kKernel, kShared);
  static_cast<void>(allowed);
  work.partial_rows = partial_rows(launch, args.group, S::kRows);
  const CacheMaps maps = make_maps<typename Streamed::S>(args);
  device::launch_kernel("attend_streams", *launch.queue,
                        static_cast<unsigned>(work.division.blocks), S::kThreads, kShared, kKernel,
                        args, work, maps);
}

template <typename T, int kSize, typename Stored>
void launch_size(const Launch& launch, const AttentionArgs& args, const Work& work, bool is_long) {
  if (is_long) return launch_kind<T, kSize, Stored, true>(launch, args, work);
  launch_kind<T, kSize, Stored, false>(launch, args, work);
}

template <typename T, typename Stored>
void launch_type(const Launch& launch, const AttentionArgs& args, const Work& work, bool is_long) {
  if (args.head_size == 64) return launch_size<T, 64, Stored>(launch, args, work, is_long);
  launch_size<T, 128, Stored>(launch, args, work, is_long);
}

}  // namespace

bool has_streams() {
  static const bool has = device::current_attribute(cudaDevAttrComputeCapabilityMajor) == 9;
  return has;
}

void launch_streams(const Launch& launch, const AttentionArgs& args, const Work& work,
                    ir::DType stored, bool is_long) {
  switch (stored) {
    case ir::DType::kI8:
      return launch_type<__half, KvInt8>(launch, args, work, is_long);
    case ir::DType::kF8E4M3:
      return launch_type<__half, KvFp8>(launch, args, work, is_long);
    case ir::DType::kBF16:
      return launch_type<__nv_bfloat16, __nv_bfloat16>(launch, args, work, is_long);
    default:
      return launch_type<__half, __half>(launch, args, work, is_long);
  }
}

}  // namespace millrace::ops::generation
