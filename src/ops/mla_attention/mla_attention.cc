#include "ops/mla_attention/mla_attention.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/mla_attention/mla_attention_tactics.h"

namespace millrace::ops {
namespace {

using In = MlaInputs;

template <device::CpuIsa kIsa>
std::string why_not(const Launch& launch, const device::Properties& properties) {
  if (std::string reason = mla_attention_simd_why_not(launch); !reason.empty()) return reason;
  return needs_isa<kIsa>(launch, properties);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "mla_attention_expanded_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = mla_attention_expanded_cuda_why_not,
                      .workspace = mla_attention_expanded_cuda_workspace,
                      .run = mla_attention_expanded_cuda},
                     {.name = "mla_attention_absorbed_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = mla_attention_absorbed_cuda_why_not,
                      .workspace = mla_attention_absorbed_cuda_workspace,
                      .run = mla_attention_absorbed_cuda},
                     {.name = "mla_attention_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = mla_attention_cuda_why_not,
                      .run = mla_attention_cuda}, )  //
    MILLRACE_ON_X86({.name = "mla_attention_avx512",
                     .why_not = why_not<device::CpuIsa::kAvx512>,
                     .workspace = mla_attention_simd_workspace,
                     .run = mla_attention_avx512},
                    {.name = "mla_attention_avx2",
                     .why_not = why_not<device::CpuIsa::kAvx2>,
                     .workspace = mla_attention_simd_workspace,
                     .run = mla_attention_avx2}, )  //
    {.name = "mla_attention_ref", .run = mla_attention_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<MlaAttention>(attrs);
  const MlaShape shape = mla_shape(a);
  check_mla_shape(shape);
  if (a.v_size < 1) throw_bad_input("v_size must be positive");
  if (!(a.scale > 0) || !std::isfinite(a.scale)) {
    throw_bad_input(str("scale must be a positive number, got ", a.scale));
  }
  const size_t count = In::kCount + (a.beams > 0 ? size_t{kNumBeamInputs} : 0);
  if (in.size() != count) throw_bad_input(str("expected ", count, " inputs, got ", in.size()));
  check_rows(in[In::kQ], int64_t{a.heads} * shape.q_size(), "q");
  check_sequence_inputs(in, In::kSequence);
  if (a.beams > 0) check_beam_inputs(in);
  check_rows(in[In::kKvB], a.latent_size, "kv_b");
  if (in[In::kKvB].shape[0] != ir::Dim(int64_t{a.heads} * (a.nope_size + a.v_size))) {
    throw_bad_input(str("kv_b is ", ir::to_string(in[In::kKvB]), " instead of ",
                        a.heads * (a.nope_size + a.v_size), " rows"));
  }
  return {{in[In::kQ].dtype, {in[In::kQ].shape[0], int64_t{a.heads} * a.v_size}}};
}

/// Of each phase in the form that takes fewer operations. While lengths are unknown all rows are
/// taken for those of prompts.
Cost cost(const Launch& launch) {
  const MlaShape shape = mla_shape(launch.attrs<MlaAttention>());
  const auto* cache = launch.in[In::kCache].as<KvCacheView>();
  const auto stored = static_cast<double>(
      ir::dtype_size(cache != nullptr ? cache->dtype : launch.in[In::kQ].dtype));
  const double made = 1.0 * shape.latent_size * (shape.nope_size + shape.v_size);  // by kv_b
  Cost total;
  total.bytes = static_cast<double>(launch.in[In::kQ].bytes() + launch.out[0].bytes() +
                                    launch.in[In::kKvB].bytes());
  const bool is_known = launch.in[In::kSequence + kHostRequestTypes].data != nullptr;
  for (const RequestType type : {RequestType::kContext, RequestType::kGeneration}) {
    if (!is_known && type == RequestType::kGeneration) continue;
    const VisibleKeys keys = count_visible_keys(launch, type, 0, 0);
    const double absorbed = keys.per_row * (shape.cached() + shape.latent_size) + keys.rows * made;
    const double expanded = keys.per_row * (shape.q_size() + shape.v_size) + keys.read * made;
    total.bytes += keys.read * shape.cached() * stored;
    total.flops += 2.0 * shape.heads * std::min(absorbed, expanded);
  }
  return total;
}

}  // namespace

const Op& op_mla_attention() {
  static constexpr Op kOp = {.name = "mla_attention",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<MlaAttention>,
                             .cost = cost,
                             .exact = mla_attention_exact};
  return kOp;
}

}  // namespace millrace::ops
