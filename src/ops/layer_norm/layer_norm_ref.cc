#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/norm_rows.h"
#include "ops/layer_norm/layer_norm.h"

namespace millrace::ops {

void layer_norm_ref(const Launch& launch) {
  const Tensor& x = launch.in[0];       // [T, E]
  const Tensor& weight = launch.in[1];  // [E]
  const int64_t width = x.dim(1);
  const double eps = launch.attrs<LayerNorm>().eps;
  with_float_type(x.dtype, [&]<typename X>(TypeTag<X>) {
    with_float_type(weight.dtype, [&]<typename W>(TypeTag<W>) {
      const W* bias = launch.in.size() > 2 ? launch.in[2].as<W>() : nullptr;  // [E]
      for_rows(launch, x.dim(0), width, [&](int64_t first, int64_t last) {
        for (int64_t at = first * width; at < last * width; at += width) {
          layer_norm_row_ref(x.as<X>() + at, weight.as<W>(), bias, launch.out[0].as<X>() + at,
                             width, eps);
        }
      });
    });
  });
}

}  // namespace millrace::ops
