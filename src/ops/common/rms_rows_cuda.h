// The RMS norm of rows on a GPU: an op of its own, and a part of some products. Host code.
#pragma once

#include "ops/common/norm_options.h"
#include "ops/op.h"

namespace millrace::ops {

/// Runs a launch with inputs x [T, E], [weight [E]] and one output.
void rms_rows_cuda(const Launch& launch, const NormOptions& options);

/// Enqueues out [T, E] = x / sqrt(mean(x^2) + eps) * (weight + weight_offset).
void rms_rows_cuda(device::Queue& queue, const Tensor& x, const Tensor& weight,
                   const NormOptions& options, const Tensor& out);

}  // namespace millrace::ops
