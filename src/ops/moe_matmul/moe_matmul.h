// moe_matmul: a linear layer of experts; each row goes through the experts that were chosen for it.
//   x: float [T, K], or [T, k, K] with a row for each choice; ids: i32 [T, k], each below E;
//   weight: float [E*N, K] or [E, N, K], expert after expert; bias: float of E*N elements if `bias`
//   -> `dtype` [T, k, N],  out[t, j] = x[t] (or x[t, j]) * weight_e^T + bias_e with e = ids[t, j]
//
// Rows are computed by expert, so that a weight is read once however many rows it has; weights of
// experts that no row goes to are not read. As in matmul, products are summed in float or wider,
// and a row of the result depends on its row of x and its expert only.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct MoeMatmul {
  static constexpr std::string_view kName = "moe_matmul";
  int experts = 1;  // E
  bool bias = false;
  std::string dtype = "f32";  // of the output
  bool operator==(const MoeMatmul&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"experts", &MoeMatmul::experts}, Field{"bias", &MoeMatmul::bias},
                      Field{"dtype", &MoeMatmul::dtype}};
  }
};

}  // namespace millrace::ops
