#include "nn/qkv.h"

#include "nn/layers.h"

namespace millrace::nn {

Qkv separate_qkv(const Scope& scope, Value x, const QkvSizes& sizes, bool bias) {
  return {linear(scope["q_proj"], x, sizes.q(), bias), linear(scope["k_proj"], x, sizes.kv(), bias),
          linear(scope["v_proj"], x, sizes.kv(), bias)};
}

Qkv split_qkv(Value qkv, const QkvSizes& sizes) {
  const int64_t k = sizes.q(), v = k + sizes.kv();
  return {slice_cols(qkv, 0, k), slice_cols(qkv, k, v), slice_cols(qkv, v, sizes.all())};
}

Qkv grouped_qkv(const Scope& scope, Value x, const QkvSizes& sizes, bool bias) {
  const int64_t size = sizes.head_size, q_rows = sizes.heads / sizes.kv_heads * size;
  const auto part = [&](int64_t first, int64_t count) {
    return linear_rows(scope, x, sizes.all(), {first, count, q_rows + 2 * size, sizes.kv_heads},
                       bias);
  };
  return {part(0, q_rows), part(q_rows, size), part(q_rows + size, size)};
}

}  // namespace millrace::nn
