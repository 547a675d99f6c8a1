#include "ops/common/cpu_tactic.h"
#include "ops/common/scalar_access.h"

namespace millrace::ops {

void add_row_ref(const Launch& launch) {
  const Tensor &x = launch.in[0], &row = launch.in[1], &out = launch.out[0];
  const int64_t width = row.dim(1);
  for_rows(launch, x.dim(0), width, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * width; i < end * width; ++i) {
      store_float(out.data, out.dtype, i,
                  load_float(x.data, x.dtype, i) + load_float(row.data, row.dtype, i % width));
    }
  });
}

}  // namespace millrace::ops
