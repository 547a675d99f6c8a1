// matmul: the linear layer with its epilogue.
//   out = f(x * weight^T + bias) + residual
//   x: activation type [T, K], weight: float [N, K] row-major as checkpoints store it,
//   bias: float [N] if `bias`, residual: x's type [T, N] if `residual` -> `dtype` [T, N]
// Products are summed in float. The weight's type may be narrower than x's; it is widened exactly.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct Matmul {
  static constexpr std::string_view kName = "matmul";
  bool bias = false;
  bool residual = false;
  std::string activation = "none";  // f, applied before the residual (ops/common/activation_kind.h)
  std::string dtype = "f32";        // of the output
  bool operator==(const Matmul&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"bias", &Matmul::bias}, Field{"residual", &Matmul::residual},
                      Field{"activation", &Matmul::activation}, Field{"dtype", &Matmul::dtype}};
  }
};

}  // namespace millrace::ops
