// The kernels of attention_generation_mma_cuda that read int8 or fp8. Products are of halves,
// whatever type the queries have.
#include "ops/attention_generation/generation_launch_cuda.cuh"

namespace millrace::ops::generation {
namespace {

/// attend_generation() for both types of 8 bits. They are told apart once, in front of all loops:
/// each has its own instructions for every pair of elements that it widens.
template <int kSize, int kColumnTiles>
__global__ void __launch_bounds__(Sizes<kSize, kColumnTiles>::kThreads,
                                  (Sizes<kSize, kColumnTiles>::kBlocks))
    attend_widening(const __grid_constant__ AttentionArgs a, const __grid_constant__ Work work) {
  using S = Sizes<kSize, kColumnTiles, 1>;
  extern __shared__ __align__(16) std::byte shared[];
  __shared__ Exchange<S::kRows, S::kWarps> exchange;
  device::let_successor_start();
  const WorkItem item = load_item(a, work);
  if (item.has_work == 0) {
    if (item.sharer == 0) device::wait_for_predecessor();
    return;
  }
  const Shares shares(item.tiles, item.sharers);
  if (a.has_scales()) {
    Kernel<__half, kSize, kColumnTiles, KvInt8, true>(a, work, shares, exchange, shared).run(item);
  } else {
    Kernel<__half, kSize, kColumnTiles, KvFp8, true>(a, work, shares, exchange, shared).run(item);
  }
}

template <int kSize, int kColumnTiles>
void launch_size(const Launch& launch, const AttentionArgs& args, const Work& work) {
  using S = Sizes<kSize, kColumnTiles, 1>;
  if constexpr (kSize * kColumnTiles <= 128) {
    launch_items<S, attend_widening<kSize, kColumnTiles>>(launch, args, work);
  } else if (args.k_scale != nullptr) {  // in one kernel they would spill more registers
    launch_items<S, attend_generation<__half, kSize, kColumnTiles, KvInt8>>(launch, args, work);
  } else {
    launch_items<S, attend_generation<__half, kSize, kColumnTiles, KvFp8>>(launch, args, work);
  }
}

}  // namespace

void launch_widening(const Launch& launch, const AttentionArgs& args, const Work& work, Kind kind) {
  CHECK(can_widen(args.head_size));
  const bool is_wide = kind == Kind::kWide;
  switch (args.head_size) {
    case 64:
      return is_wide ? launch_size<64, 2>(launch, args, work)
                     : launch_size<64, 1>(launch, args, work);
    case 128:
      return is_wide ? launch_size<128, 2>(launch, args, work)
                     : launch_size<128, 1>(launch, args, work);
    default:
      return launch_size<256, 1>(launch, args, work);
  }
}

}  // namespace millrace::ops::generation
