// The kernels of attention_generation_mma_cuda for one token of each sequence on Hopper, see
// generation_stream_cuda.cuh.
#include <algorithm>

#include "device/cuda/tensor_map.h"
#include "ops/attention_generation/generation_launch_cuda.cuh"
#include "ops/attention_generation/generation_stream_cuda.cuh"
#include "ops/attention_generation/generation_stream_launch_cuda.h"

namespace millrace::ops::generation {
namespace {

/// A plane of the cache in boxes of 16 keys. How many blocks there are is not known: as many as fit
/// into the address space of a GPU.
template <int kSize>
CUtensorMap make_plane_map(const AttentionArgs& args, const std::byte* plane) {
  constexpr int64_t kAddressSpace = int64_t{1} << 40, kMaxBlocks = int64_t{1} << 30;
  constexpr int64_t kBox = BoxSizes<kSize>::kBoxElements, kParts = kSize / kBox;
  const int64_t blocks =
      std::clamp<int64_t>(kAddressSpace / args.block_bytes, int64_t{1}, kMaxBlocks);
  const int64_t keys = int64_t{args.tokens_per_block} * args.kv_heads;
  return device::make_tensor_map(plane, {kBox, keys, kParts, blocks},
                                 {kSize, kBox, args.block_bytes / 2}, {kBox, kTileKeys, kParts, 1},
                                 device::Swizzle::k128Bytes);
}

template <typename T, int kSize>
void launch_size(const Launch& launch, const AttentionArgs& args, Work work) {
  using S = Sizes<kSize, 1>;
  constexpr int kBoxAlignment = 1024;
  constexpr int kShared =
      std::max(S::shared_bytes(S::kRows), Stream<T, kSize>::kSharedBytes + kBoxAlignment);
  constexpr auto* kKernel = attend_streams<T, kSize>;
  static const bool allowed = [] {
    // All of the cache as shared memory: else fewer blocks may fit than the grid is made for.
    device::check_cuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                            cudaSharedmemCarveoutMaxShared),
                       "attend_streams", "shared memory");
    return device::allow_shared("attend_streams", kKernel, kShared);
  }();
  static_cast<void>(allowed);
  work.partial_rows = partial_rows(launch, args.group, S::kRows);
  const PlaneMaps maps = {make_plane_map<kSize>(args, args.k), make_plane_map<kSize>(args, args.v)};
  device::launch_kernel("attend_streams", *launch.queue,
                        static_cast<unsigned>(work.division.blocks), S::kThreads, kShared, kKernel,
                        args, work, maps);
}

template <typename T>
void launch_type(const Launch& launch, const AttentionArgs& args, const Work& work) {
  if (args.head_size == 64) return launch_size<T, 64>(launch, args, work);
  launch_size<T, 128>(launch, args, work);
}

}  // namespace

bool has_streams() {
  static const bool has = device::current_attribute(cudaDevAttrComputeCapabilityMajor) == 9;
  return has;
}

void launch_streams(const Launch& launch, const AttentionArgs& args, const Work& work) {
  if (launch.in[0].dtype == ir::DType::kBF16) return launch_type<__nv_bfloat16>(launch, args, work);
  launch_type<__half>(launch, args, work);
}

}  // namespace millrace::ops::generation
