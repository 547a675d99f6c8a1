#include "ops/mla_append/mla_append.h"

#include "base/error.h"
#include "ops/common/cuda_tactic.h"
#include "ops/mla_append/mla_append_inputs.h"

namespace millrace::ops {

void mla_append_ref(const Launch& launch);
void mla_append_cuda(const Launch& launch);

namespace {

using In = MlaAppendInputs;

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "mla_append_cuda", .device = device::Kind::kCuda, .run = mla_append_cuda}, )  //
    {.name = "mla_append_ref", .run = mla_append_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const MlaShape shape = mla_shape(from_attrs<MlaAppend>(attrs));
  check_mla_shape(shape);
  if (in.size() != In::kCount)
    throw_bad_input(str("expected ", In::kCount, " inputs, got ", in.size()));
  check_rows(in[In::kQ], int64_t{shape.heads} * shape.q_size(), "q");
  check_rows(in[In::kKv], shape.cached(), "kv");
  if (in[In::kKv].dtype != in[In::kQ].dtype) throw_bad_input("q and kv must have the same type");
  check_sequence_inputs(in, In::kSequence);
  check_rows(in[In::kAngles], shape.rope_size, "angles");
  if (in[In::kAngles].dtype != ir::DType::kF32) throw_bad_input("angles must be f32");
  check_vector(in[In::kNorm], shape.latent_size, "norm");
  return {in[In::kQ], in[In::kCache]};
}

Cost cost(const Launch& launch) {
  const auto* cache = launch.in[In::kCache].as<KvCacheView>();
  const auto stored =
      static_cast<double>(ir::dtype_size(cache != nullptr ? cache->dtype : launch.in[0].dtype));
  const auto& kv = launch.in[In::kKv];
  return {.bytes = static_cast<double>(2 * launch.in[In::kQ].bytes() + kv.bytes()) +
                   stored * static_cast<double>(kv.count()),
          .flops = 3.0 * static_cast<double>(kv.count())};
}

}  // namespace

const Op& op_mla_append() {
  static constexpr Op kOp = {.name = "mla_append",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<MlaAppend>,
                             .cost = cost};
  return kOp;
}

}  // namespace millrace::ops
