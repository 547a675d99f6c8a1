// Element types of tensors, and the conversions between the floating-point ones.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

namespace millrace::ir {

enum class DType : uint8_t {
  kF64,
  kF32,
  kBF16,
  kF16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
  kState,  // what a step changes in place and a graph only passes along: a layer's KV cache
};
inline constexpr int kNumDTypes = 16;

/// Bytes of one element; 0 for kState.
int64_t dtype_size(DType type);

/// "f32", "bf16", ...: as the text form of graphs spells it.
const char* dtype_name(DType type);

/// Inverse of dtype_name; empty for an unknown name.
std::optional<DType> parse_dtype(std::string_view name);

/// The spelling of safetensors files ("F32", "BF16", "F8_E4M3", "BOOL"); empty for a type we cannot
/// hold.
std::optional<DType> parse_safetensors_dtype(std::string_view name);
const char* safetensors_dtype_name(DType type);

inline bool is_float(DType type) {
  return type <= DType::kF8E5M2;
}

/// True when convert() can: from a floating-point type to F32, BF16 or F16, and between equal
/// types.
inline bool is_convertible(DType from, DType to) {
  const bool is_target = to == DType::kF32 || to == DType::kBF16 || to == DType::kF16;
  return from == to || (is_float(from) && is_target);
}

// Scalar conversions. To bf16 and fp16: round to nearest, ties to even; NaN stays NaN.

inline float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

float f16_to_float(uint16_t bits);
uint16_t float_to_f16(float value);
float f8e4m3_to_float(uint8_t bits);
float f8e5m2_to_float(uint8_t bits);

/// Converts `count` elements; `source` may lie anywhere, as tensors of files do. REQUIRES:
/// is_convertible(from, to).
void convert(DType from, const void* source, DType to, void* target, int64_t count);

}  // namespace millrace::ir
