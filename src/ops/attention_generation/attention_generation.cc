#include "ops/attention_generation/attention_generation.h"

#include <cmath>

#include "base/error.h"
#include "ops/attention_generation/attention_generation_plan.h"
#include "ops/attention_generation/attention_generation_tactics.h"
#include "ops/common/attention_ref.h"
#include "ops/common/attention_units_cuda.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"

namespace millrace::ops {
namespace {

constexpr size_t kOutInput = 1 + kNumSequenceInputs + 1;

/// Vector kernels read and write f32 activations, which is what there is on a CPU.
template <device::CpuIsa kIsa>
std::string why_not(const Launch& launch, const device::Properties& properties) {
  if (launch.in[0].dtype != ir::DType::kF32) return "needs f32 activations";
  return needs_isa<kIsa>(launch, properties);
}

#if defined(__x86_64__)
int64_t workspace(const Launch& launch, const device::Properties&) {
  return GenerationPlan::workspace_bytes(launch);
}
#endif

#if defined(MILLRACE_CUDA)
std::string why_not_cuda(const Launch& launch, const device::Properties&) {
  return why_no_units(AttentionShape::of(launch.attrs<AttentionGeneration>()));
}
#endif

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "attention_generation_mma_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = attention_generation_mma_cuda_why_not,
                      .workspace = attention_generation_mma_cuda_workspace,
                      .run = attention_generation_mma_cuda},
                     {.name = "attention_generation_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = why_not_cuda,
                      .workspace = attention_generation_cuda_workspace,
                      .run = attention_generation_cuda}, )
        MILLRACE_ON_X86({.name = "attention_generation_avx512",
                         .why_not = why_not<device::CpuIsa::kAvx512>,
                         .workspace = workspace,
                         .run = attention_generation_avx512},
                        {.name = "attention_generation_avx2",
                         .why_not = why_not<device::CpuIsa::kAvx2>,
                         .workspace = workspace,
                         .run = attention_generation_avx2}, ){.name = "attention_generation_ref",
                                                              .run = attention_generation_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<AttentionGeneration>(attrs);
  check_attention(in, AttentionShape::of(a), kOutInput + 1);
  if (a.splits < 0 || a.splits > kMaxSplits) {
    throw_bad_input(str("splits must be 0 to ", kMaxSplits, ", got ", a.splits));
  }
  check_rows(in[kOutInput], int64_t{a.heads} * a.v_head_size, "out");
  if (in[kOutInput].dtype != in[0].dtype) throw_bad_input("q and out must have the same type");
  return {{in[0].dtype, {in[0].shape[0], int64_t{a.heads} * a.v_head_size}}};
}

Cost cost(const Launch& launch) {
  return attention_cost(launch, AttentionShape::of(launch.attrs<AttentionGeneration>()),
                        RequestType::kGeneration);
}

/// Rows of context sequences stay as they are.
double exact(const Launch& launch, int64_t index) {
  const double value =
      attention_exact(launch, AttentionShape::of(launch.attrs<AttentionGeneration>()),
                      RequestType::kGeneration, index);
  return std::isnan(value) ? exact_element(launch.in[kOutInput], index) : value;
}

}  // namespace

const Op& op_attention_generation() {
  static const Op op = {.name = "attention_generation",
                        .tactics = kTactics,
                        .infer = infer,
                        .parse_attrs = parse_attrs<AttentionGeneration>,
                        .cost = cost,
                        .exact = exact,
                        .phase = Phase::kGeneration,
                        .alias_input = int{kOutInput}};
  return op;
}

}  // namespace millrace::ops
