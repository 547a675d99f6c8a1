// The kernels of attention_generation_mma_cuda that read int8 or fp8.
#include "ops/attention_generation/generation_launch_cuda.cuh"

namespace millrace::ops::generation {
namespace {

// Products are of halves, whatever type the queries have.
template <typename Stored>
void launch_stored(const Launch& launch, const AttentionArgs& args, const Work& work, Kind kind) {
  const bool is_wide = kind == Kind::kWide;
  switch (args.head_size) {
    case 64:
      return is_wide ? launch_kernel<__half, 64, 2, Stored>(launch, args, work)
                     : launch_kernel<__half, 64, 1, Stored>(launch, args, work);
    case 128:
      return is_wide ? launch_kernel<__half, 128, 2, Stored>(launch, args, work)
                     : launch_kernel<__half, 128, 1, Stored>(launch, args, work);
    default:
      return launch_kernel<__half, 256, 1, Stored>(launch, args, work);
  }
}

}  // namespace

void launch_widening(const Launch& launch, const AttentionArgs& args, const Work& work, Kind kind,
                     ir::DType stored) {
  CHECK(can_widen(args.head_size));
  if (stored == ir::DType::kI8) return launch_stored<KvInt8>(launch, args, work, kind);
  launch_stored<KvFp8>(launch, args, work, kind);
}

}  // namespace millrace::ops::generation
