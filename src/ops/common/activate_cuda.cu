#include "ops/common/activate_cuda.h"
#include "ops/common/activation_cuda.cuh"
#include "ops/common/elementwise_cuda.cuh"

namespace millrace::ops {
namespace {

struct Activate {
  ActivationKind kind;
  __device__ float operator()(float x, float) const { return activate(kind, x); }
};

}  // namespace

void activate_cuda(device::Queue& queue, ActivationKind kind, const Tensor& x, const Tensor& out) {
  Launch launch;
  launch.in = {&x, 1};
  launch.out = {&out, 1};
  launch.queue = &queue;
  elementwise_cuda<false>(launch, "activation_cuda", Activate{kind});
}

}  // namespace millrace::ops
