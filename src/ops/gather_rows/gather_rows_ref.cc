// Copies of whole rows: memcpy is as fast as a processor can.
#include <cstring>

#include "ops/common/cpu_tactic.h"

namespace millrace::ops {

void gather_rows_ref(const Launch& launch) {
  const Tensor& x = launch.in[0];                 // [T, ...]
  const auto* rows = launch.in[1].as<int32_t>();  // [L]
  int64_t width = 1;                              // elements of a row
  for (int i = 1; i < x.rank; ++i)
    width *= x.dim(i);
  const int64_t row_bytes = width * ir::dtype_size(x.dtype);
  for_rows(launch, launch.in[1].dim(0), width, [&](int64_t first, int64_t last) {
    for (int64_t l = first; l < last; ++l) {
      std::memcpy(launch.out[0].as<std::byte>() + l * row_bytes,
                  x.as<std::byte>() + rows[l] * row_bytes, static_cast<size_t>(row_bytes));
    }
  });
}

}  // namespace millrace::ops
