#include "ops/common/elementwise_cuda.cuh"
#include "ops/rescale/rescale_math.h"

namespace millrace::ops {
namespace {

struct RescaleElements {
  RescaleSteps<float> rescale;
  __device__ float operator()(float x, float) const { return rescale(x); }
};

}  // namespace

void rescale_cuda(const Launch& launch) {
  const RescaleSteps<float> rescale(launch.attrs<Rescale>());
  elementwise_cuda<false>(launch, "rescale_cuda", RescaleElements{rescale});
}

}  // namespace millrace::ops
