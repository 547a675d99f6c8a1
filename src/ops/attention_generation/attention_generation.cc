#include "ops/attention_generation/attention_generation.h"

#include <cmath>

#include "base/error.h"
#include "ops/attention_generation/attention_generation_composed.h"
#include "ops/attention_generation/attention_generation_inputs.h"
#include "ops/attention_generation/attention_generation_plan.h"
#include "ops/attention_generation/attention_generation_tactics.h"
#include "ops/common/attention_ref.h"
#include "ops/common/attention_units_cuda.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"

namespace millrace::ops {
namespace {

constexpr size_t kOutInput = GenerationInputs::kOut;

/// Vector kernels read and write f32 activations, which is what there is on a CPU.
template <device::CpuIsa kIsa>
std::string why_not(const Launch& launch, const device::Properties& properties) {
  if (launch.in[0].dtype != ir::DType::kF32) return "needs f32 activations";
  if (launch.attrs<AttentionGeneration>().append) return "does not append";
  return needs_isa<kIsa>(launch, properties);
}

#if defined(__x86_64__)
int64_t workspace(const Launch& launch, const device::Properties&) {
  return GenerationPlan::workspace_bytes(launch);
}
#endif

int64_t no_workspace(const Launch&, const device::Properties&) {
  return 0;
}

#if defined(MILLRACE_CUDA)
std::string why_not_cuda(const Launch& launch, const device::Properties&) {
  return why_no_units(AttentionShape::of(launch.attrs<AttentionGeneration>()));
}
#endif

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "attention_generation_cluster_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = attention_generation_cluster_cuda_why_not,
                      .workspace = attention_generation_mma_cuda_workspace,
                      .run = attention_generation_cluster_cuda,
                      .batch_invariant = false},
                     {.name = "attention_generation_mma_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = attention_generation_mma_cuda_why_not,
                      .workspace = attention_generation_mma_cuda_workspace,
                      .run = attention_generation_mma_cuda},
                     {.name = "attention_generation_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = composed_why_not<why_not_cuda>,
                      .workspace = composed_workspace<attention_generation_cuda_workspace>,
                      .run = run_composed<attention_generation_cuda>}, )
        MILLRACE_ON_X86({.name = "attention_generation_avx512",
                         .why_not = why_not<device::CpuIsa::kAvx512>,
                         .workspace = workspace,
                         .run = attention_generation_avx512},
                        {.name = "attention_generation_avx2",
                         .why_not = why_not<device::CpuIsa::kAvx2>,
                         .workspace = workspace,
                         .run = attention_generation_avx2}, ){
            .name = "attention_generation_ref",
            .workspace = composed_workspace<no_workspace>,
            .run = run_composed<attention_generation_ref>},
};

/// What `append` asks for. REQUIRES: there are as many inputs as `at` counts.
void check_appended(std::span<const ir::TensorType> in, const AttentionGeneration& a,
                    const GenerationInputs& at) {
  const auto input = [&](int index) { return in[static_cast<size_t>(index)]; };
  if (a.beams > 0) throw_bad_input("beams need rope_append to append");
  if (a.rotary_dim < 0 || a.rotary_dim > a.head_size || a.rotary_dim % 2 != 0) {
    throw_bad_input(str("rotary_dim must be even and at most head_size, got ", a.rotary_dim));
  }
  if (at.angles >= 0) {
    check_rows(input(at.angles), a.rotary_dim, "angles");
    if (input(at.angles).dtype != ir::DType::kF32) throw_bad_input("angles must be f32");
  }
  if (a.packed) return;
  check_rows(input(at.k), int64_t{a.kv_heads} * a.head_size, "k");
  check_rows(input(at.v), int64_t{a.kv_heads} * a.v_head_size, "v");
  if (input(at.k).dtype != in[0].dtype || input(at.v).dtype != in[0].dtype) {
    throw_bad_input("q, k and v must have the same type");
  }
}

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<AttentionGeneration>(attrs);
  const GenerationInputs at(a);
  std::vector<ir::TensorType> of_attention(in.begin(), in.end());
  if (a.append && a.packed && !in.empty()) {
    check_rows(in[0],
               int64_t{a.heads + a.kv_heads} * a.head_size + int64_t{a.kv_heads} * a.v_head_size,
               "qkv");
    of_attention[0].shape[1] = int64_t{a.heads} * a.head_size;
  }
  check_attention(of_attention, AttentionShape::of(a), static_cast<size_t>(at.count));
  if (a.splits < 0 || a.splits > kMaxSplits) {
    throw_bad_input(str("splits must be 0 to ", kMaxSplits, ", got ", a.splits));
  }
  check_rows(in[kOutInput], int64_t{a.heads} * a.v_head_size, "out");
  if (in[kOutInput].dtype != in[0].dtype) throw_bad_input("q and out must have the same type");
  if (a.planned) {
    const ir::TensorType& plan = in[static_cast<size_t>(at.plan)];
    if (plan.dtype != ir::DType::kI32 || plan.shape.size() != 2) {
      throw_bad_input(str("plan must be i32 of rank 2, got ", ir::to_string(plan)));
    }
  }
  std::vector<ir::TensorType> out = {
      {in[0].dtype, {in[0].shape[0], int64_t{a.heads} * a.v_head_size}}};
  if (a.append) {
    check_appended(in, a, at);
    out.push_back(in[GenerationInputs::kCache]);
  }
  return out;
}

Cost cost(const Launch& launch) {
  return attention_cost(launch, AttentionShape::of(launch.attrs<AttentionGeneration>()),
                        RequestType::kGeneration);
}

/// Rows of context sequences stay as they are. What is appended is in the launch's cache then, as
/// after the op itself.
double exact(const Launch& launch, int64_t index) {
  const AttentionShape shape = AttentionShape::of(launch.attrs<AttentionGeneration>());
  Launch placed = launch;
  std::vector<std::byte> rotated(static_cast<size_t>(ComposedGeneration(launch).bytes()));
  placed.workspace = rotated.data();
  const ComposedGeneration composed(placed);
  composed.append();
  const double value =
      attention_exact(composed.attention(), shape, RequestType::kGeneration, index);
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
