// Element types that a kernel tells apart when it runs, where one kernel for each would be too
// many. All threads take the same way, which should be a loop or more: not one element. For .cu
// files.
#pragma once

#include "ops/common/attention_cuda.cuh"

namespace millrace::ops {

/// A type that on_float_type() knows; others end the process.
inline ir::DType float_type(ir::DType type) {
  with_float_type(type, [](auto) {});
  return type;
}

/// The same for on_cache_type().
inline ir::DType cache_type(ir::DType type) {
  with_cache_type(type, [](auto) {});
  return type;
}

/// Calls `function` with a value of the C++ type of floats.
template <typename F>
__device__ __forceinline__ void on_float_type(ir::DType type, const F& function) {
  if (type == ir::DType::kF32) {
    function(float{});
  } else if (type == ir::DType::kBF16) {
    function(__nv_bfloat16{});
  } else {
    function(__half{});
  }
}

/// Calls `function` with a value of the C++ type of a cache's elements.
template <typename F>
__device__ __forceinline__ void on_cache_type(ir::DType type, const F& function) {
  if (type == ir::DType::kI8) {
    function(KvInt8{});
  } else if (type == ir::DType::kF8E4M3) {
    function(KvFp8{});
  } else {
    on_float_type(type, function);
  }
}

}  // namespace millrace::ops
