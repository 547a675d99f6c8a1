#include "ops/attention_encoder/attention_encoder_inputs.h"
#include "ops/common/full_attention_cuda.h"

namespace millrace::ops {

std::string attention_encoder_cuda_why_not(const Launch& launch,
                                           const device::Properties& properties) {
  return full_attention_why_not(FullAttention::of(launch.attrs<AttentionEncoder>()), properties);
}

void attention_encoder_cuda(const Launch& launch) {
  const auto& attrs = launch.attrs<AttentionEncoder>();
  const FullAttention shape = FullAttention::of(attrs);
  FullArgs a = full_args(launch, shape, launch.in[kEncoderStart], launch.in[kEncoderLength]);
  a.key_type = launch.in[kEncoderK].dtype;
  a.k_rows = launch.in[kEncoderK].data;
  a.v_rows = launch.in[kEncoderV].data;
  a.k_stride = launch.in[kEncoderK].dim(1);
  a.v_stride = launch.in[kEncoderV].dim(1);
  if (attrs.relative_buckets > 0) {
    a.bias = launch.in[kEncoderBias].data;
    a.bias_type = launch.in[kEncoderBias].dtype;
    a.buckets = encoder_buckets(attrs);
  }
  launch_full_attention("attention_encoder_cuda", launch, a, launch.in[kEncoderK].dim(0));
}

}  // namespace millrace::ops
