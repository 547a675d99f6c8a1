// Types of the KV cache on the CPU: the way from a dtype to them, and loads and stores of what only
// the cache holds (ops/common/kv_types.h), like those of floats in ops/common/vec_loops.h. Loads by
// vectors need ops/common/kv_vec_avx2.h or kv_vec_avx512.h; stores go element by element, for there
// is one vector a token and head.
#pragma once

#include <cstdint>

#include "ops/common/float_types.h"
#include "ops/common/kv_types.h"
#include "ops/common/vec_loops.h"

namespace millrace::ops {

/// Calls `function(TypeTag<T>{})` with the C++ type of a cache's elements.
template <typename F>
void with_kv_type(ir::DType dtype, F&& function) {
  if (dtype == ir::DType::kI8) return function(TypeTag<KvInt8>{});
  if (dtype == ir::DType::kF8E4M3) return function(TypeTag<KvFp8>{});
  with_float_type(dtype, function);
}

template <typename V, typename T>
V load_widened(const T* p) {
  V x;
  widen_all(p, &x);
  return x;
}
template <typename V, typename T>
V load_widened(const T* p, int64_t count) {
  T all[V::kWidth] = {};
  for (int64_t i = 0; i < count; ++i)
    all[i] = p[i];
  return load_widened<V>(all);
}

template <typename V>
V load(const KvInt8* p, AllLanes) {
  return load_widened<V>(p);
}
template <typename V>
V load(const KvInt8* p, FirstLanes lanes) {
  return load_widened<V>(p, lanes.count);
}
template <typename V>
V load(const KvFp8* p, AllLanes) {
  return load_widened<V>(p);
}
template <typename V>
V load(const KvFp8* p, FirstLanes lanes) {
  return load_widened<V>(p, lanes.count);
}

template <typename V>
void store_fp8(V value, KvFp8* p, int64_t count) {
  float x[V::kWidth];
  value.store(x);
  for (int64_t i = 0; i < count; ++i)
    p[i] = to_fp8(x[i]);
}
template <typename V>
void store(V value, KvFp8* p, AllLanes) {
  store_fp8(value, p, V::kWidth);
}
template <typename V>
void store(V value, KvFp8* p, FirstLanes lanes) {
  store_fp8(value, p, lanes.count);
}

}  // namespace millrace::ops
