// The activation functions on a GPU; the definition is in activation_kind.h.
#pragma once

#include "ops/common/activation_kind.h"
#include "ops/common/cuda_kernel.cuh"

namespace millrace::ops {

__device__ inline float activate(ActivationKind kind, float x) {
  switch (kind) {
    case ActivationKind::kNone:
      return x;
    case ActivationKind::kSilu:
      return x / (1.0F + expf(-x));
    case ActivationKind::kGelu:
      return 0.5F * x * (1.0F + erff(x * 0.70710678118654752F));
    case ActivationKind::kGeluTanh:
      return 0.5F * x * (1.0F + tanhf(0.79788456080286536F * (x + 0.044715F * x * x * x)));
    case ActivationKind::kRelu:
      return x > 0.0F ? x : 0.0F;
    case ActivationKind::kRelu2:
      return x > 0.0F ? x * x : 0.0F;
    case ActivationKind::kQuickGelu:
      return x / (1.0F + expf(-1.702F * x));
  }
  return x;
}

}  // namespace millrace::ops
