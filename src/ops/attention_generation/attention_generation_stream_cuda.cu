// The kernels of attention_generation_mma_cuda for one token of each sequence on Hopper, see
// generation_stream_cuda.cuh.
#include <algorithm>

#include "device/cuda/tensor_map.h"
#include "ops/attention_generation/generation_launch_cuda.cuh"
#include "ops/attention_generation/generation_stream_cuda.cuh"
#include "ops/attention_generation/generation_stream_launch_cuda.h"

namespace millrace::ops::generation {
namespace {

/// Maps of boxes of 16 keys with their values, in units of 16 bits. How many blocks there are is
/// not known: as many as fit into the address space of a GPU.
template <typename S>
CacheMaps make_maps(const AttentionArgs& args) {
  constexpr int64_t kAddressSpace = int64_t{1} << 40, kMaxBlocks = int64_t{1} << 30;
  constexpr int64_t kBox = S::kBoxRow / 2, kParts = S::kStageBytes / 2 / S::kBoxBytes;
  const int64_t blocks =
      std::clamp<int64_t>(kAddressSpace / args.block_bytes, int64_t{1}, kMaxBlocks);
  const int64_t keys = int64_t{args.tokens_per_block} * args.kv_heads;
  CacheMaps maps{};
  maps.vectors = device::make_tensor_map(
      args.k, {kBox, keys, kParts, 2, blocks},
      {kBox * kParts, kBox, (args.v - args.k) / 2, args.block_bytes / 2},
      {kBox, kTileKeys, kParts, 2, 1},
      S::kBoxRow == 128 ? device::Swizzle::k128Bytes : device::Swizzle::k64Bytes);
  if (args.k_scale != nullptr) {
    maps.scales = device::make_tensor_map(args.k_scale, {2 * keys, 2, blocks},
                                          {(args.v_scale - args.k_scale) / 2, args.block_bytes / 2},
                                          {2 * kTileKeys, 2, 1}, device::Swizzle::kNone);
  }
  return maps;
}

template <typename T, int kSize, typename Stored>
void launch_size(const Launch& launch, const AttentionArgs& args, Work work) {
  using Streamed = Stream<T, kSize, Stored>;
  using S = Sizes<kSize, 1, static_cast<int>(sizeof(Stored))>;
  constexpr int kBoxAlignment = 1024;
  constexpr int kShared =
      std::max(S::shared_bytes(S::kRows), Streamed::kSharedBytes + kBoxAlignment);
  constexpr auto* kKernel = attend_streams<T, kSize, Stored>;
  static const bool allowed = device::reserve_shared("attend_streams", kKernel, kShared);
  static_cast<void>(allowed);
  work.partial_rows = partial_rows(launch, args.group, S::kRows);
  const CacheMaps maps = make_maps<typename Streamed::S>(args);
  device::launch_kernel("attend_streams", *launch.queue,
                        static_cast<unsigned>(work.division.blocks), S::kThreads, kShared, kKernel,
                        args, work, maps);
}

template <typename T, typename Stored>
void launch_type(const Launch& launch, const AttentionArgs& args, const Work& work) {
  if (args.head_size == 64) return launch_size<T, 64, Stored>(launch, args, work);
  launch_size<T, 128, Stored>(launch, args, work);
}

}  // namespace

bool has_streams() {
  static const bool has = device::current_attribute(cudaDevAttrComputeCapabilityMajor) == 9;
  return has;
}

void launch_streams(const Launch& launch, const AttentionArgs& args, const Work& work,
                    ir::DType stored) {
  switch (stored) {
    case ir::DType::kI8:
      return launch_type<__half, KvInt8>(launch, args, work);
    case ir::DType::kF8E4M3:
      return launch_type<__half, KvFp8>(launch, args, work);
    case ir::DType::kBF16:
      return launch_type<__nv_bfloat16, __nv_bfloat16>(launch, args, work);
    default:
      return launch_type<__half, __half>(launch, args, work);
  }
}

}  // namespace millrace::ops::generation
