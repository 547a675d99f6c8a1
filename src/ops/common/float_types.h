// The float types that kernels read and write, as C++ types, and the way from a dtype to them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ir/dtype.h"

namespace millrace::ops {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

inline float widen(float value) {
  return value;
}
inline float widen(Bf16 value) {
  return ir::bf16_to_float(value.bits);
}
inline float widen(F16 value) {
  return ir::f16_to_float(value.bits);
}

/// Rounds to nearest, ties to even.
template <typename T>
T narrow(float value) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return {ir::float_to_bf16(value)};
  } else if constexpr (std::is_same_v<T, F16>) {
    return {ir::float_to_f16(value)};
  } else {
    return value;
  }
}

/// Ends the process: a shape rule has let another type through.
[[noreturn]] void no_kernel_for(ir::DType dtype);

inline bool is_kernel_float(ir::DType dtype) {
  return dtype == ir::DType::kF32 || dtype == ir::DType::kBF16 || dtype == ir::DType::kF16;
}

template <typename T>
struct TypeTag {
  using Type = T;
};

/// Calls `function(TypeTag<T>{})` with T = float, Bf16 or F16. REQUIRES: is_kernel_float(dtype).
template <typename F>
void with_float_type(ir::DType dtype, F&& function) {
  switch (dtype) {
    case ir::DType::kF32:
      return function(TypeTag<float>{});
    case ir::DType::kBF16:
      return function(TypeTag<Bf16>{});
    case ir::DType::kF16:
      return function(TypeTag<F16>{});
    default:
      no_kernel_for(dtype);
  }
}

}  // namespace millrace::ops
