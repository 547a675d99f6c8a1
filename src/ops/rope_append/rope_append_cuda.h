// rope_append for a part of a launch's rows. Host code.
#pragma once

#include "ops/op.h"

namespace millrace::ops {

/// Enqueues rows [first_row, first_row + rows) of `launch`, which is one of rope_append; the others
/// are left as they are.
void rope_append_rows_cuda(const Launch& launch, int64_t first_row, int64_t rows);

}  // namespace millrace::ops
