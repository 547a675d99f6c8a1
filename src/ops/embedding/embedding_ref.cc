#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/embedding/embedding.h"
#include "ops/embedding/prompt_rows.h"

namespace millrace::ops {

void embedding_ref(const Launch& launch) {
  const auto* ids = launch.in[0].as<int32_t>();  // [T]
  const Tensor& table = launch.in[1];            // [V, E]
  const int64_t width = table.dim(1);
  const int offset = launch.attrs<Embedding>().offset;
  const float* prompts = prompt_rows(launch);
  with_float_type(table.dtype, [&]<typename In>(TypeTag<In>) {
    with_float_type(launch.out[0].dtype, [&]<typename Out>(TypeTag<Out>) {
      for_rows(launch, launch.in[0].dim(0), width, [&](int64_t first, int64_t last) {
        for (int64_t t = first; t < last; ++t) {
          Out* out = launch.out[0].as<Out>() + t * width;
          if (prompts != nullptr && ids[t] >= table.dim(0)) {
            const float* row = prompts + (ids[t] - table.dim(0)) * width;
            for (int64_t i = 0; i < width; ++i)
              out[i] = narrow<Out>(row[i]);
            continue;
          }
          const In* row = table.as<In>() + (int64_t{ids[t]} + offset) * width;
          for (int64_t i = 0; i < width; ++i)
            out[i] = narrow<Out>(widen(row[i]));
        }
      });
    });
  });
}

}  // namespace millrace::ops
