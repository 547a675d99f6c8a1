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

/// Without lengths: every sequence has as many keys as there are rows, or a few blocks.
Cost cost(const Launch& launch) {
  const FullAttention shape = FullAttention::of(launch.attrs<AttentionCross>());
  const auto* lengths = launch.in[kCrossLengths].as<int32_t>();
  const auto* queries = launch.in[kCrossLength].as<int32_t>();
  const auto* cache = launch.in[kCrossCache].as<KvCacheView>();
  const ir::DType stored = cache != nullptr ? cache->dtype : launch.in[kCrossQ].dtype;
  constexpr double kGuessedKeys = 256;
  const int64_t sequences = launch.in[kCrossLengths].dim(0);
  double pairs = 0, keys = 0;
  if (lengths == nullptr || queries == nullptr) {
    pairs = static_cast<double>(launch.in[kCrossQ].dim(0)) * kGuessedKeys;
    keys = static_cast<double>(sequences) * kGuessedKeys;
  } else {
    for (int64_t s = 0; s < sequences; ++s) {
      pairs += double{1} * queries[s] * lengths[s];
      keys += queries[s] > 0 ? lengths[s] : 0;
    }
  }
  return full_attention_cost(shape, launch, pairs, keys,
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
