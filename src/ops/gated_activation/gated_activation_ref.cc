#include "ops/common/activation_kind.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/gated_activation/gated_activation.h"

namespace millrace::ops {

void gated_activation_ref(const Launch& launch) {
  const ActivationKind kind = *parse_activation(launch.attrs<GatedActivation>().kind);
  const int64_t width = launch.out[0].dim(-1);  // F
  with_float_type(launch.in[0].dtype, [&]<typename T>(TypeTag<T>) {
    for_rows(launch, launch.out[0].rows(), width, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const T* gate = launch.in[0].as<T>() + row * 2 * width;
        T* out = launch.out[0].as<T>() + row * width;
        for (int64_t i = 0; i < width; ++i) {
          out[i] = narrow<T>(apply_activation(kind, widen(gate[i])) * widen(gate[width + i]));
        }
      }
    });
  });
}

}  // namespace millrace::ops
