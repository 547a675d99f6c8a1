#include <algorithm>
#include <cmath>

#include "ops/clamped_swiglu/clamped_swiglu.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"

namespace millrace::ops {

void clamped_swiglu_ref(const Launch& launch) {
  constexpr int64_t kCostOfAnExponential = 16;
  const auto& a = launch.attrs<ClampedSwiglu>();
  const auto alpha = static_cast<float>(a.alpha), limit = static_cast<float>(a.limit);
  const int64_t width = launch.out[0].dim(-1);  // F
  with_float_type(launch.in[0].dtype, [&]<typename T>(TypeTag<T>) {
    for_rows(launch, launch.out[0].rows(), kCostOfAnExponential * width,
             [&](int64_t first, int64_t last) {
               for (int64_t i = first * width; i < last * width; ++i) {
                 const float gate = std::min(widen(launch.in[0].as<T>()[2 * i]), limit);
                 const float up = std::clamp(widen(launch.in[0].as<T>()[2 * i + 1]), -limit, limit);
                 launch.out[0].as<T>()[i] =
                     narrow<T>((up + 1) * (gate / (1 + std::exp(-alpha * gate))));
               }
             });
  });
}

}  // namespace millrace::ops
