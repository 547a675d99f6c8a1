#include "ops/attention_encoder/attention_encoder.h"

#include "base/error.h"
#include "ops/attention_encoder/attention_encoder_inputs.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/sequence_rows.h"

namespace millrace::ops {
namespace {

/// Vector kernels read and write f32 activations, which is what there is on a CPU.
template <device::CpuIsa kIsa>
std::string why_not(const Launch& launch, const device::Properties& properties) {
  if (launch.in[kEncoderQ].dtype != ir::DType::kF32) return "needs f32 activations";
  return needs_isa<kIsa>(launch, properties);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "attention_encoder_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = attention_encoder_cuda_why_not,
                      .run = attention_encoder_cuda}, )
        MILLRACE_ON_X86({.name = "attention_encoder_avx512",
                         .why_not = why_not<device::CpuIsa::kAvx512>,
                         .workspace = attention_encoder_workspace,
                         .run = attention_encoder_avx512},
                        {.name = "attention_encoder_avx2",
                         .why_not = why_not<device::CpuIsa::kAvx2>,
                         .workspace = attention_encoder_workspace,
                         .run = attention_encoder_avx2}, ){.name = "attention_encoder_ref",
                                                           .run = attention_encoder_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<AttentionEncoder>(attrs);
  const size_t inputs = kEncoderBias + (a.relative_buckets > 0 ? 1 : 0);
  if (in.size() != inputs) throw_bad_input(str("expected ", inputs, " inputs, got ", in.size()));
  check_full_attention(FullAttention::of(a), in, kEncoderStart);
  check_rows(in[kEncoderK], int64_t{a.kv_heads} * a.head_size, "k");
  check_rows(in[kEncoderV], int64_t{a.kv_heads} * a.v_head_size, "v");
  if (in[kEncoderK].dtype != in[kEncoderQ].dtype || in[kEncoderV].dtype != in[kEncoderQ].dtype) {
    throw_bad_input("q, k and v must have the same type");
  }
  if (a.relative_buckets < 0) throw_bad_input("relative_buckets must not be negative");
  if (a.relative_buckets > 0) {
    if (const std::string why = encoder_buckets(a).why_not(); !why.empty()) throw_bad_input(why);
    const ir::TensorType& bias = in[kEncoderBias];
    if (!is_kernel_float(bias.dtype) || bias.shape != ir::Shape{a.relative_buckets, a.heads}) {
      throw_bad_input(str("bias must be f32, bf16 or f16 of shape [", a.relative_buckets, ", ",
                          a.heads, "], got ", ir::to_string(bias)));
    }
  }
  return {{in[kEncoderQ].dtype, {in[kEncoderQ].shape[0], int64_t{a.heads} * a.v_head_size}}};
}

/// Lengths are on the device: as of sequences that are equally long.
Cost cost(const Launch& launch) {
  const FullAttention shape = FullAttention::of(launch.attrs<AttentionEncoder>());
  const auto rows = static_cast<double>(launch.in[kEncoderQ].dim(0));
  const auto sequences = static_cast<double>(launch.in[kEncoderLength].dim(0));
  return full_attention_cost(shape, launch, rows * rows / sequences, rows,
                             static_cast<double>(ir::dtype_size(launch.in[kEncoderK].dtype)));
}

}  // namespace

int64_t attention_encoder_workspace(const Launch& launch, const device::Properties&) {
  const auto& a = launch.attrs<AttentionEncoder>();
  if (a.relative_buckets == 0) return 0;
  return a.heads * (2 * launch.in[kEncoderQ].dim(0) - 1) * static_cast<int64_t>(sizeof(float));
}

const Op& op_attention_encoder() {
  static const Op op = {.name = "attention_encoder",
                        .tactics = kTactics,
                        .infer = infer,
                        .parse_attrs = parse_attrs<AttentionEncoder>,
                        .cost = cost,
                        .exact = attention_encoder_exact};
  return op;
}

}  // namespace millrace::ops
