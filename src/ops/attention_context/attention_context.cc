#include "ops/attention_context/attention_context.h"

#include "base/error.h"
#include "ops/attention_context/attention_context_tactics.h"
#include "ops/attention_context/attention_context_tiles.h"
#include "ops/common/attention_ref.h"
#include "ops/common/attention_units_cuda.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"

namespace millrace::ops {
namespace {

/// Vector kernels read and write f32 activations, which is what there is on a CPU.
template <device::CpuIsa kIsa>
std::string why_not(const Launch& launch, const device::Properties& properties) {
  if (launch.in[0].dtype != ir::DType::kF32) return "needs f32 activations";
  return needs_isa<kIsa>(launch, properties);
}

#if defined(MILLRACE_CUDA)
std::string why_not_cuda(const Launch& launch, const device::Properties&) {
  return why_no_units(AttentionShape::of(launch.attrs<AttentionContext>()));
}
#endif

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "attention_context_wgmma_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = attention_context_wgmma_why_not,
                      .run = attention_context_wgmma_cuda},
                     {.name = "attention_context_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = why_not_cuda,
                      .run = attention_context_cuda}, )
        MILLRACE_ON_X86({.name = "attention_context_avx512",
                         .why_not = why_not<device::CpuIsa::kAvx512>,
                         .workspace = attention_context_workspace,
                         .run = attention_context_avx512},
                        {.name = "attention_context_avx2",
                         .why_not = why_not<device::CpuIsa::kAvx2>,
                         .workspace = attention_context_workspace,
                         .run = attention_context_avx2}, ){.name = "attention_context_ref",
                                                           .run = attention_context_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<AttentionContext>(attrs);
  check_attention(in, AttentionShape::of(a), 1 + kNumSequenceInputs + 1);
  return {{in[0].dtype, {in[0].shape[0], int64_t{a.heads} * a.v_head_size}}};
}

Cost cost(const Launch& launch) {
  return attention_cost(launch, AttentionShape::of(launch.attrs<AttentionContext>()),
                        RequestType::kContext);
}

double exact(const Launch& launch, int64_t index) {
  return attention_exact(launch, AttentionShape::of(launch.attrs<AttentionContext>()),
                         RequestType::kContext, index);
}

}  // namespace

const Op& op_attention_context() {
  static const Op op = {
      .name = "attention_context",
      .tactics = kTactics,
      .infer = infer,
      .parse_attrs = parse_attrs<AttentionContext>,
      .cost = cost,
      .exact = exact,
      .phase = Phase::kContext,
  };
  return op;
}

}  // namespace millrace::ops
