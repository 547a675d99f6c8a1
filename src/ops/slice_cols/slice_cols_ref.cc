// Copies of pieces of rows: memcpy is as fast as a processor can.
#include <cstring>

#include "ops/common/cpu_tactic.h"
#include "ops/slice_cols/slice_cols.h"

namespace millrace::ops {

void slice_cols_ref(const Launch& launch) {
  const Tensor& x = launch.in[0];  // [T, N]
  const int64_t size = ir::dtype_size(x.dtype);
  const int64_t in_bytes = x.dim(1) * size;
  const int64_t out_bytes = launch.out[0].dim(1) * size;
  const std::byte* in = x.as<std::byte>() + launch.attrs<SliceCols>().begin * size;
  for_rows(launch, x.dim(0), launch.out[0].dim(1), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      std::memcpy(launch.out[0].as<std::byte>() + row * out_bytes, in + row * in_bytes,
                  static_cast<size_t>(out_bytes));
    }
  });
}

}  // namespace millrace::ops
