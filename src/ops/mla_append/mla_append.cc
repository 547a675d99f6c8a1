#include "ops/mla_append/mla_append.h"

#include "base/error.h"
#include "ops/common/cuda_tactic.h"
#include "ops/mla_append/mla_append_inputs.h"

namespace millrace::ops {

void mla_append_ref(const Launch& launch);
void mla_append_cuda(const Launch& launch);

namespace {

using namespace mla_append_input;

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "mla_append_cuda", .device = device::Kind::kCuda, .run = mla_append_cuda}, )  //
    {.name = "mla_append_ref", .run = mla_append_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const MlaShape shape = mla_shape(from_attrs<MlaAppend>(attrs));
  check_mla_shape(shape);
  if (in.size() != kCount) throw_bad_input(str("expected ", kCount, " inputs, got ", in.size()));
  check_rows(in[kQ], int64_t{shape.heads} * shape.q_size(), "q");
  check_rows(in[kKv], shape.cached(), "kv");
  if (in[kKv].dtype != in[kQ].dtype) throw_bad_input("q and kv must have the same type");
  check_sequence_inputs(in, kSequence);
  check_rows(in[kAngles], shape.rope_size, "angles");
  if (in[kAngles].dtype != ir::DType::kF32) throw_bad_input("angles must be f32");
  check_vector(in[kNorm], shape.latent_size, "norm");
  return {in[kQ], in[kCache]};
}

Cost cost(const Launch& launch) {
  const auto* cache = launch.in[kCache].as<KvCacheView>();
  const auto stored =
      static_cast<double>(ir::dtype_size(cache != nullptr ? cache->dtype : launch.in[0].dtype));
  const auto& kv = launch.in[kKv];
  return {.bytes = static_cast<double>(2 * launch.in[kQ].bytes() + kv.bytes()) +
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
