#include "ops/add_layer_norm/add_layer_norm.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/norm_rows.h"

namespace millrace::ops {

void add_layer_norm_ref(const Launch& launch) {
  const Tensor& x = launch.in[0];         // [T, E]
  const Tensor& residual = launch.in[1];  // [T, E]
  const Tensor& weight = launch.in[2];    // [E]
  const int64_t width = x.dim(1);
  const double eps = launch.attrs<AddLayerNorm>().eps;
  with_float_type(x.dtype, [&]<typename X>(TypeTag<X>) {
    with_float_type(weight.dtype, [&]<typename W>(TypeTag<W>) {
      const W* bias = launch.in.size() > 3 ? launch.in[3].as<W>() : nullptr;  // [E]
      for_rows(launch, x.dim(0), width, [&](int64_t first, int64_t last) {
        for (int64_t at = first * width; at < last * width; at += width) {
          X* sum = launch.out[0].as<X>() + at;
          add_row_ref(x.as<X>() + at, residual.as<X>() + at, sum, width);
          layer_norm_row_ref(sum, weight.as<W>(), bias, launch.out[1].as<X>() + at, width, eps);
        }
      });
    });
  });
}

}  // namespace millrace::ops
