// Tactics of matmul that run only a part of it themselves: kernels of other ops do the rest, and
// what goes from one to the other lies in the workspace. Host code.
//
//   norm:        first rms_norm(x) [T, K], then the product
//   gated:       gate_up [T, 2F] = x * weight^T + bias,   then   out = f(gate) * up
//   activation:  out = x * weight^T + bias,   then   out = f(out)
//
// As separate ops would, so what the function is applied to is rounded to the type of the output.
#pragma once

#include <array>
#include <string>

#include "ops/matmul/matmul.h"
#include "ops/op.h"

namespace millrace::ops {

/// A tactic's own functions, as in Tactic.
struct MatmulKernel {
  void (*run)(const Launch&) = nullptr;
  std::string (*why_not)(const Launch&, const device::Properties&) = nullptr;
  int64_t (*workspace)(const Launch&, const device::Properties&) = nullptr;
  /// Whether it can do a gated launch, or one with a norm, as it is; null: never.
  bool (*gates)(const Launch&) = nullptr;
  bool (*norms)(const Launch&) = nullptr;
  /// Likewise for a launch with an activation alone; null: every one.
  bool (*activates)(const Launch&) = nullptr;
};

/// A launch of matmul, divided into what a kernel can run and what comes before and after it.
/// Refers to the launch's tensors.
class ComposedMatmul {
 public:
  ComposedMatmul(const Launch& launch, const MatmulKernel& kernel);
  ComposedMatmul(const ComposedMatmul&) = delete;
  ComposedMatmul& operator=(const ComposedMatmul&) = delete;

  /// For the kernel. Its workspace begins behind the intermediate values.
  const Launch& product() const { return product_; }
  /// Bytes of the intermediate values.
  int64_t bytes() const { return bytes_; }
  /// Why the kernels around the product cannot run it; empty if they can.
  std::string why_not(const device::Properties& device) const;
  /// Enqueue what comes before the product, and what follows it.
  void begin() const;
  void finish() const;

 private:
  bool norms_first() const { return product_.in.data() == in_.data(); }
  bool gates_last() const { return product_.out.data() == &gate_up_; }
  Tensor placed(ir::DType dtype, int64_t rows, int64_t cols);

  const Launch& launch_;
  Launch product_;
  Matmul attributes_;         // of the product
  std::array<Tensor, 4> in_;  // of the product, where its x [T, K] is normed
  Tensor gate_up_;            // [T, 2F], its output where that is not the launch's
  bool activates_last_ = false;
  int64_t bytes_ = 0;
};

template <const MatmulKernel& kKernel>
std::string composed_why_not(const Launch& launch, const device::Properties& device) {
  const ComposedMatmul composed(launch, kKernel);
  std::string reason = composed.why_not(device);
  if constexpr (kKernel.why_not != nullptr) {
    if (reason.empty()) reason = kKernel.why_not(composed.product(), device);
  }
  return reason;
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
  composed.begin();
  kKernel.run(composed.product());
  composed.finish();
}

/// Runs every launch that the kernel can run, and by several kernels those with a gate, a norm or
/// an activation that it does not do.
template <const MatmulKernel& kKernel>
constexpr Tactic composed_tactic(const char* name, bool batch_invariant = true) {
  return {.name = name,
          .device = device::Kind::kCuda,
          .why_not = composed_why_not<kKernel>,
          .workspace = composed_workspace<kKernel>,
          .run = run_composed<kKernel>,
          .batch_invariant = batch_invariant};
}

}  // namespace millrace::ops
