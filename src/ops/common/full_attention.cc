#include "ops/common/full_attention.h"

#include <cmath>

#include "base/error.h"
#include "ops/common/sequence_rows.h"

namespace millrace::ops {

void check_full_attention(const FullAttention& shape, std::span<const ir::TensorType> in,
                          size_t owners) {
  check_heads(shape.heads, shape.kv_heads, shape.head_size, shape.v_head_size);
  if (!(shape.scale > 0) || !std::isfinite(shape.scale)) {
    throw_bad_input(str("scale must be a positive number, got ", shape.scale));
  }
  check_rows(in[0], int64_t{shape.heads} * shape.head_size, "q");
  constexpr const char* kNames[] = {"query_start", "query_length"};
  for (size_t i = 0; i < 2; ++i) {
    const ir::TensorType& type = in[owners + i];
    if (type.dtype != ir::DType::kI32 || type.shape.size() != 1) {
      throw_bad_input(str(kNames[i], " must be i32 of rank 1, got ", ir::to_string(type)));
    }
  }
}

Cost full_attention_cost(const FullAttention& shape, const Launch& launch, double pairs,
                         double keys, double key_bytes) {
  const double width = shape.head_size + shape.v_head_size;
  return {.bytes = static_cast<double>(launch.in[0].bytes() + launch.out[0].bytes()) +
                   keys * shape.kv_heads * width * key_bytes,
          .flops = 2 * pairs * shape.heads * width};
}

}  // namespace millrace::ops
