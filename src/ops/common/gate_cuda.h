// The gate of a feed-forward on a GPU: an op of its own, and a part of some products. Host code.
#pragma once

#include "ops/common/activation_kind.h"
#include "ops/op.h"

namespace millrace::ops {

/// Enqueues out [..., F] = f(gate) * up, for gate_up [..., 2F]: gate in columns [0, F), up in
/// [F, 2F). Both of one float type.
void gate_cuda(const device::Queue& queue, ActivationKind kind, const Tensor& gate_up,
               const Tensor& out);

}  // namespace millrace::ops
