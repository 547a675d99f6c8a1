#include "ops/mla_attention/mla_attention_simd_sizes.h"
#include "ops/mla_attention/mla_attention_tactics.h"

namespace millrace::ops {

std::string mla_attention_simd_why_not(const Launch& launch) {
  const MlaShape shape = mla_shape(launch.attrs<MlaAttention>());
  if (launch.in[MlaInputs::kQ].dtype != ir::DType::kF32) return "needs f32 activations";
  if (shape.cached() > kMlaMaxCached) {
    return str("more than ", kMlaMaxCached, " cached elements a token");
  }
  return shape.q_size() > kMlaMaxHead || shape.v_size > kMlaMaxHead
             ? str("heads of more than ", kMlaMaxHead)
             : "";
}

/// A largest logit and a sum for each row of each head.
int64_t mla_attention_simd_workspace(const Launch& launch, const device::Properties&) {
  return launch.out[0].dim(0) * launch.attrs<MlaAttention>().heads * 2 *
         static_cast<int64_t>(sizeof(float));
}

}  // namespace millrace::ops
