// matmul: the linear layer with its epilogue.
//   out = f(x * weight^T + bias) + residual
//   x: f32, bf16 or f16 [T, K], weight: f32, bf16 or f16 [N, K] row-major as checkpoints store it,
//   bias: f32, bf16 or f16 [N] if `bias`, residual: x's type [T, N] if `residual` -> `dtype` [T, N]
// Inputs come in this order: x, weight, bias, residual, norm weight. Products are summed in float
// or wider. The weight's type may be narrower than x's; it is widened exactly.
//
// With `gated` it is two products and their gate (SwiGLU and its relatives):
//   out = f(x * gate^T + gate's bias) * (x * up^T + up's bias)
//   weight: [2F, K], gate in rows [0, F), up in [F, 2F); bias: [2F]; no residual -> [T, F]
//
// With `norm` "rms" it multiplies rms_norm(x), rounded to x's type as the op of that name does:
//   x / sqrt(mean(x^2) + norm_eps) * (norm weight + norm_offset)
//   norm weight: f32, bf16 or f16 [K], the last input
//
// A row of the result depends on that row of x only: not on T, not on the number of threads. Within
// one tactic its bits are the same alone and in any batch, unless the tactic says otherwise
// (Tactic::batch_invariant).
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct Matmul {
  static constexpr std::string_view kName = "matmul";
  bool bias = false;
  bool residual = false;
  std::string activation = "none";  // f, applied before the residual (ops/common/activation_kind.h)
  std::string dtype = "f32";        // of the output
  bool gated = false;
  std::string norm = "none";
  double norm_eps = 1e-5;
  double norm_offset = 0;
  /// Lets a tactic round x to bf16 before it multiplies: a relative error of up to 2^-9 in each
  /// factor of x, and subnormal products may count as zero. Sums stay in float.
  bool bf16_products = false;
  bool operator==(const Matmul&) const = default;
  bool normed() const { return norm != "none"; }
  static constexpr auto fields() {
    return std::tuple{Field{"bias", &Matmul::bias},
                      Field{"residual", &Matmul::residual},
                      Field{"activation", &Matmul::activation},
                      Field{"dtype", &Matmul::dtype},
                      Field{"gated", &Matmul::gated},
                      Field{"norm", &Matmul::norm},
                      Field{"norm_eps", &Matmul::norm_eps},
                      Field{"norm_offset", &Matmul::norm_offset},
                      Field{"bf16_products", &Matmul::bf16_products}};
  }
};

}  // namespace millrace::ops
