#include "ops/common/exact.h"

#include "ops/common/float_types.h"

namespace millrace::ops {

double exact_element(const Tensor& tensor, int64_t index) {
  if (tensor.dtype == ir::DType::kI32) return tensor.as<int32_t>()[index];
  double value = 0;
  with_float_type(tensor.dtype,
                  [&]<typename T>(TypeTag<T>) { value = widen(tensor.as<T>()[index]); });
  return value;
}

}  // namespace millrace::ops
