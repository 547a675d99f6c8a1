#include "ops/rope_append/rope_append.h"

#include "base/error.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/rope_append/rope_append_inputs.h"
#include "ops/rope_append/rope_append_tactics.h"

namespace millrace::ops {
namespace {

/// Vector kernels read and write f32 activations, which is what there is on a CPU.
template <device::CpuIsa kIsa>
std::string why_not(const Launch& launch, const device::Properties& properties) {
  if (launch.in[0].dtype != ir::DType::kF32) return "needs f32 activations";
  return needs_isa<kIsa>(launch, properties);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "rope_append_cuda", .device = device::Kind::kCuda, .run = rope_append_cuda}, )
        MILLRACE_ON_X86({.name = "rope_append_avx512",
                         .why_not = why_not<device::CpuIsa::kAvx512>,
                         .run = rope_append_avx512},
                        {.name = "rope_append_avx2",
                         .why_not = why_not<device::CpuIsa::kAvx2>,
                         .run = rope_append_avx2}, ){.name = "rope_append_ref",
                                                     .run = rope_append_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<RopeAppend>(attrs);
  check_heads(a.heads, a.kv_heads, a.head_size, a.v_head_size);
  if (a.rotary_dim < 0 || a.rotary_dim > a.head_size || a.rotary_dim % 2 != 0) {
    throw_bad_input(str("rotary_dim must be even and at most head_size, got ", a.rotary_dim));
  }
  if (a.phase != "both" && a.phase != "context" && a.phase != "generation") {
    throw_bad_input(str("phase must be both, context or generation, got ", a.phase));
  }
  const RopeAppendInputs at(a);
  if (in.size() != static_cast<size_t>(at.count)) {
    throw_bad_input(str("expected ", at.count, " inputs, got ", in.size()));
  }
  const auto input = [&](int index) { return in[static_cast<size_t>(index)]; };
  const int64_t q_size = int64_t{a.heads} * a.head_size;
  const int64_t k_size = int64_t{a.kv_heads} * a.head_size;
  const int64_t v_size = int64_t{a.kv_heads} * a.v_head_size;
  if (a.packed) {
    check_rows(input(at.q), q_size + k_size + v_size, "qkv");
  } else {
    check_rows(input(at.q), q_size, "q");
    check_rows(input(at.k), k_size, "k");
    check_rows(input(at.v), v_size, "v");
    if (input(at.k).dtype != in[0].dtype || input(at.v).dtype != in[0].dtype) {
      throw_bad_input("q, k and v must have the same type");
    }
  }
  check_sequence_inputs(in, static_cast<size_t>(at.sequence));
  if (a.rotary_dim > 0) {
    check_rows(input(at.angles), a.rotary_dim, "angles");
    if (input(at.angles).dtype != ir::DType::kF32) throw_bad_input("angles must be f32");
  }
  if (a.qk_norm) {
    check_vector(input(at.q_norm), a.head_size, "q_norm");
    check_vector(input(at.k_norm), a.head_size, "k_norm");
  }
  return {{in[0].dtype, {in[0].shape[0], q_size}}, input(at.cache)};
}

Cost cost(const Launch& launch) {
  const auto& a = launch.attrs<RopeAppend>();
  const RopeAppendInputs at(a);
  const auto* cache = launch.in[static_cast<size_t>(at.cache)].as<KvCacheView>();
  const auto element = static_cast<double>(ir::dtype_size(launch.in[0].dtype));
  const ir::DType stored = cache != nullptr ? cache->dtype : launch.in[0].dtype;
  const auto stored_bytes = static_cast<double>(kv_vector_bytes(stored, a.head_size) +
                                                kv_vector_bytes(stored, a.v_head_size));
  const auto rows = static_cast<double>(launch.in[0].dim(0));
  const double q = double{1} * a.heads * a.head_size;
  const double kv = double{1} * a.kv_heads * (a.head_size + a.v_head_size);
  return {.bytes = rows * ((2 * q + kv) * element + a.kv_heads * stored_bytes + 4.0 * a.rotary_dim),
          .flops = rows * 3.0 * a.rotary_dim * (a.heads + a.kv_heads)};
}

}  // namespace

const Op& op_rope_append() {
  static const Op op = {.name = "rope_append",
                        .tactics = kTactics,
                        .infer = infer,
                        .parse_attrs = parse_attrs<RopeAppend>,
                        .cost = cost};
  return op;
}

}  // namespace millrace::ops
