#include "ir/dtype.h"

#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace millrace::ir {
namespace {

struct TypeRow {
  DType type;
  int64_t size;
  const char* name;
  const char* safetensors;
};

constexpr std::array<TypeRow, kNumDTypes> kTypes = {{
    {DType::kF64, 8, "f64", "F64"},
    {DType::kF32, 4, "f32", "F32"},
    {DType::kBF16, 2, "bf16", "BF16"},
    {DType::kF16, 2, "f16", "F16"},
    {DType::kF8E4M3, 1, "f8e4m3", "F8_E4M3"},
    {DType::kF8E5M2, 1, "f8e5m2", "F8_E5M2"},
    {DType::kI64, 8, "i64", "I64"},
    {DType::kI32, 4, "i32", "I32"},
    {DType::kI16, 2, "i16", "I16"},
    {DType::kI8, 1, "i8", "I8"},
    {DType::kU64, 8, "u64", "U64"},
    {DType::kU32, 4, "u32", "U32"},
    {DType::kU16, 2, "u16", "U16"},
    {DType::kU8, 1, "u8", "U8"},
    {DType::kBool, 1, "bool", "BOOL"},
    {DType::kState, 0, "state", ""},
}};

const TypeRow& row(DType type) {
  return kTypes[static_cast<size_t>(type)];
}

// 8-bit floats: sign, `exponent_bits`, the rest mantissa. `value` has no special cases handled yet.
float small_float(uint8_t bits, int exponent_bits, int bias) {
  const int mantissa_bits = 7 - exponent_bits;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const float fraction = std::ldexp(static_cast<float>(mantissa), -mantissa_bits);
  const float magnitude =
      exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
  return (bits & 0x80) ? -magnitude : magnitude;
}

}  // namespace

int64_t dtype_size(DType type) {
  return row(type).size;
}

const char* dtype_name(DType type) {
  return row(type).name;
}

const char* safetensors_dtype_name(DType type) {
  return row(type).safetensors;
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const TypeRow& t : kTypes) {
    if (name == t.name) return t.type;
  }
  return std::nullopt;
}

std::optional<DType> parse_safetensors_dtype(std::string_view name) {
  for (const TypeRow& t : kTypes) {
    if (!name.empty() && name == t.safetensors) return t.type;
  }
  return std::nullopt;
}

float f8e4m3_to_float(uint8_t bits) {
  if ((bits & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();  // no infinities
  return small_float(bits, 4, 7);
}

float f8e5m2_to_float(uint8_t bits) {
  if ((bits & 0x7c) == 0x7c) {
    if ((bits & 3) != 0) return std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    return (bits & 0x80) ? -infinity : infinity;
  }
  return small_float(bits, 5, 15);
}

}  // namespace millrace::ir
