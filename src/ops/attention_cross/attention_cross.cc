#include "ops/attention_cross/attention_cross.h"

#include "base/error.h"
#include "ops/attention_cross/attention_cross_inputs.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"

namespace millrace::ops {
namespace {

/// Vector kernels read and write f32 activations, which is what there is on a CPU.
template <device::CpuIsa kIsa>
std::string why_not(const Launch& launch, const device::Properties& properties) {
  if (launch.in[kCrossQ].dtype != ir::DType::kF32) return "needs f32 activations";
  return needs_isa<kIsa>(launch, properties);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "attention_cross_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = attention_cross_cuda_why_not,
                      .run = attention_cross_cuda}, )
        MILLRACE_ON_X86({.name = "attention_cross_avx512",
                         .why_not = why_not<device::CpuIsa::kAvx512>,
                         .run = attention_cross_avx512},
                        {.name = "attention_cross_avx2",
                         .why_not = why_not<device::CpuIsa::kAvx2>,
                         .run = attention_cross_avx2}, ){.name = "attention_cross_ref",
                                                         .run = attention_cross_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<AttentionCross>(attrs);
  if (in.size() != kNumCrossInputs) {
    throw_bad_input(str("expected ", int{kNumCrossInputs}, " inputs, got ", in.size()));
  }
  check_full_attention(FullAttention::of(a), in, kCrossStart);
  if (in[kCrossLengths] != in[kCrossStart]) {
    throw_bad_input(str("encoder_input_lengths must be ", ir::to_string(in[kCrossStart]), ", got ",
                        ir::to_string(in[kCrossLengths])));
  }
  if (in[kCrossBlocks].dtype != ir::DType::kI32 || in[kCrossBlocks].shape.size() != 3) {
    throw_bad_input(
        str("kv_cache_block_offsets must be i32 of rank 3, got ", ir::to_string(in[kCrossBlocks])));
  }
  if (in[kCrossCache].dtype != ir::DType::kState) {
    throw_bad_input(str("the KV cache must be a state, got ", ir::to_string(in[kCrossCache])));
  }
  return {{in[kCrossQ].dtype, {in[kCrossQ].shape[0], int64_t{a.heads} * a.v_head_size}}};
}

/// Lengths are on the device: as of encoders' outputs that fill their blocks.
Cost cost(const Launch& launch) {
  const FullAttention shape = FullAttention::of(launch.attrs<AttentionCross>());
  const auto* cache = launch.in[kCrossCache].as<KvCacheView>();
  constexpr int64_t kUsualTokensPerBlock = 64;  // a guess while there is no cache to ask
  const int64_t tokens = cache != nullptr ? cache->tokens_per_block : kUsualTokensPerBlock;
  const ir::DType stored = cache != nullptr ? cache->dtype : launch.in[kCrossQ].dtype;
  const auto keys = static_cast<double>(launch.in[kCrossBlocks].dim(2) * tokens);
  return full_attention_cost(shape, launch, static_cast<double>(launch.in[kCrossQ].dim(0)) * keys,
                             static_cast<double>(launch.in[kCrossLengths].dim(0)) * keys,
                             static_cast<double>(ir::dtype_size(stored)));
}

}  // namespace

const Op& op_attention_cross() {
  static const Op op = {.name = "attention_cross",
                        .tactics = kTactics,
                        .infer = infer,
                        .parse_attrs = parse_attrs<AttentionCross>,
                        .cost = cost,
                        .exact = attention_cross_exact};
  return op;
}

}  // namespace millrace::ops
