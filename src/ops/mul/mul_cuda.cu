#include "ops/common/elementwise_cuda.cuh"

namespace millrace::ops {
namespace {

struct MulElements {
  __device__ float operator()(float a, float b) const { return a * b; }
};

}  // namespace

void mul_cuda(const Launch& launch) {
  elementwise_cuda<true>(launch, "mul_cuda", MulElements{});
}

}  // namespace millrace::ops
