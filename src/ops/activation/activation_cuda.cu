#include "ops/activation/activation.h"
#include "ops/common/activation_cuda.cuh"
#include "ops/common/elementwise_cuda.cuh"

namespace millrace::ops {
namespace {

struct Activate {
  ActivationKind kind;
  __device__ float operator()(float x, float) const { return activate(kind, x); }
};

}  // namespace

void activation_cuda(const Launch& launch) {
  const ActivationKind kind = *parse_activation(launch.attrs<Activation>().kind);
  elementwise_cuda<false>(launch, "activation_cuda", Activate{kind});
}

}  // namespace millrace::ops
