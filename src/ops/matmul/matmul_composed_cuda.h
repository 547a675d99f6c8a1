// Tactics of matmul that run only a part of it themselves: kernels of other ops do the rest, and
// what goes from one to the other lies in the workspace. Host code.
//
//   gated:   gate_up [T, 2F] = x * weight^T + bias,   then   out = f(gate) * up
//
// As separate ops would, so the intermediate values are rounded to the type of the output.
#pragma once

#include <string>

#include "ops/matmul/matmul.h"
#include "ops/op.h"

namespace millrace::ops {

/// A tactic's own functions, as in Tactic.
struct MatmulKernel {
  void (*run)(const Launch&) = nullptr;
  std::string (*why_not)(const Launch&, const device::Properties&) = nullptr;
  int64_t (*workspace)(const Launch&, const device::Properties&) = nullptr;
  /// Whether it can do a gated launch as it is; null: never.
  bool (*gates)(const Launch&) = nullptr;
};

/// A launch of matmul, divided into what a kernel can run and what follows. Refers to the launch's
/// tensors.
class ComposedMatmul {
 public:
  ComposedMatmul(const Launch& launch, const MatmulKernel& kernel);
  ComposedMatmul(const ComposedMatmul&) = delete;
  ComposedMatmul& operator=(const ComposedMatmul&) = delete;

  /// For the kernel. Its workspace begins behind the intermediate values.
  const Launch& product() const { return product_; }
  /// Bytes of the intermediate values.
  int64_t bytes() const { return bytes_; }
  /// Enqueues what follows the product.
  void finish() const;

 private:
  const Launch& launch_;
  Launch product_;
  Matmul attributes_;  // of the product, and
  Tensor gate_up_;     // its output [T, 2F], where it is not the launch's
  int64_t bytes_ = 0;
};

template <const MatmulKernel& kKernel>
std::string composed_why_not(const Launch& launch, const device::Properties& device) {
  return kKernel.why_not(ComposedMatmul(launch, kKernel).product(), device);
}

template <const MatmulKernel& kKernel>
int64_t composed_workspace(const Launch& launch, const device::Properties& device) {
  const ComposedMatmul composed(launch, kKernel);
  int64_t bytes = composed.bytes();
  if constexpr (kKernel.workspace != nullptr)
    bytes += kKernel.workspace(composed.product(), device);
  return bytes;
}

template <const MatmulKernel& kKernel>
void run_composed(const Launch& launch) {
  const ComposedMatmul composed(launch, kKernel);
  kKernel.run(composed.product());
  composed.finish();
}

/// Runs every launch that the kernel can run, and gated ones by two kernels where it cannot gate.
template <const MatmulKernel& kKernel>
constexpr Tactic composed_tactic(const char* name, bool batch_invariant = true) {
  Tactic tactic{.name = name,
                .device = device::Kind::kCuda,
                .workspace = composed_workspace<kKernel>,
                .run = run_composed<kKernel>,
                .batch_invariant = batch_invariant};
  if constexpr (kKernel.why_not != nullptr) tactic.why_not = composed_why_not<kKernel>;
  return tactic;
}

}  // namespace millrace::ops
