// The specification. The sum of squares is taken in double, everything else in float.
#include <cmath>

#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::ops {
namespace {

template <typename X, typename W>
void norm_row(const X* x, const W* weight, X* out, int64_t width, double eps) {
  double squares = 0;
  for (int64_t i = 0; i < width; ++i)
    squares += static_cast<double>(widen(x[i])) * widen(x[i]);
  const auto scale = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(width) + eps));
  for (int64_t i = 0; i < width; ++i)
    out[i] = narrow<X>(widen(x[i]) * scale * widen(weight[i]));
}

}  // namespace

void rms_norm_ref(const Launch& launch) {
  const Tensor& x = launch.in[0];       // [T, E]
  const Tensor& weight = launch.in[1];  // [E]
  const int64_t width = x.dim(1);
  const double eps = launch.attrs<RmsNorm>().eps;
  with_float_type(x.dtype, [&]<typename X>(TypeTag<X>) {
    with_float_type(weight.dtype, [&]<typename W>(TypeTag<W>) {
      for_rows(launch, x.dim(0), width, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
          norm_row(x.as<X>() + row * width, weight.as<W>(), launch.out[0].as<X>() + row * width,
                   width, eps);
        }
      });
    });
  });
}

}  // namespace millrace::ops
