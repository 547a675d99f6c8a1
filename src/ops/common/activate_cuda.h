// An activation on a GPU: an op of its own, and a part of some products. Host code.
#pragma once

#include "ops/common/activation_kind.h"
#include "ops/op.h"

namespace millrace::ops {

/// Enqueues out = f(x), element by element; both of one float type and shape. `out` may be x.
void activate_cuda(device::Queue& queue, ActivationKind kind, const Tensor& x, const Tensor& out);

}  // namespace millrace::ops
