#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/rescale/rescale_math.h"

namespace millrace::ops {

void rescale_ref(const Launch& launch) {
  const RescaleSteps<float> rescale(launch.attrs<Rescale>());
  with_float_type(launch.in[0].dtype, [&]<typename T>(TypeTag<T>) {
    const T* x = launch.in[0].as<T>();
    T* out = launch.out[0].as<T>();
    for_rows(launch, launch.in[0].count(), 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        out[i] = narrow<T>(rescale(widen(x[i])));
    });
  });
}

}  // namespace millrace::ops
