#include "ops/common/float_types.h"

#include "base/check.h"

namespace millrace::ops {

void no_kernel_for(ir::DType dtype) {
  check_failed("a kernel's type", str("no kernel reads ", ir::dtype_name(dtype)));
}

}  // namespace millrace::ops
