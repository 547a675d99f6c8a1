#include "ops/activation/activation.h"
#include "ops/common/activation_kind.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"

namespace millrace::ops {

void activation_ref(const Launch& launch) {
  const ActivationKind kind = *parse_activation(launch.attrs<Activation>().kind);
  with_float_type(launch.in[0].dtype, [&]<typename T>(TypeTag<T>) {
    const T* x = launch.in[0].as<T>();
    T* out = launch.out[0].as<T>();
    for_rows(launch, launch.in[0].count(), 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        out[i] = narrow<T>(apply_activation(kind, widen(x[i])));
    });
  });
}

}  // namespace millrace::ops
