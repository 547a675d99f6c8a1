#include "ir/dtype.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
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

// Element i of an array at any address.
template <typename T>
T element(const void* source, int64_t i) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(source) + i * int64_t{sizeof(T)}, sizeof(T));
  return value;
}

float load(DType type, const void* source, int64_t i) {
  switch (type) {
    case DType::kF64:
      return static_cast<float>(element<double>(source, i));
    case DType::kF32:
      return element<float>(source, i);
    case DType::kBF16:
      return bf16_to_float(element<uint16_t>(source, i));
    case DType::kF16:
      return f16_to_float(element<uint16_t>(source, i));
    case DType::kF8E4M3:
      return f8e4m3_to_float(element<uint8_t>(source, i));
    case DType::kF8E5M2:
      return f8e5m2_to_float(element<uint8_t>(source, i));
    default:
      CHECK(false, "not a floating-point type: ", dtype_name(type));
  }
  return 0;
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

float f16_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24, exact in float
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 0xffu : exponent + 112;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

uint16_t float_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const float magnitude = std::bit_cast<float>(bits & 0x7fffffffu);
  if (std::isnan(magnitude)) return sign | 0x7e00;
  if (magnitude >= 65520.0f) return sign | 0x7c00;  // halfway between the largest f16 and 2^16
  if (magnitude < 0x1p-14f) {                       // subnormal: the addition rounds to 2^-24 steps
    const float shifted = magnitude + 0.5f;         // ulp(0.5) in float is 2^-24
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000u);
  }
  const uint32_t m = std::bit_cast<uint32_t>(magnitude);
  return sign | static_cast<uint16_t>((m - 0x38000000u + 0xfffu + ((m >> 13) & 1)) >> 13);
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

void convert(DType from, const void* source, DType to, void* target, int64_t count) {
  if (count == 0) return;  // then pointers may be null
  if (from == to) {
    std::memcpy(target, source, static_cast<size_t>(count * dtype_size(from)));
    return;
  }
  if (from == DType::kBF16 && to == DType::kF32) {  // the common case, a loop that vectorises
    auto* out = static_cast<float*>(target);
    for (int64_t i = 0; i < count; ++i)
      out[i] = bf16_to_float(element<uint16_t>(source, i));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const float value = load(from, source, i);
    switch (to) {
      case DType::kF32:
        static_cast<float*>(target)[i] = value;
        break;
      case DType::kBF16:
        static_cast<uint16_t*>(target)[i] = float_to_bf16(value);
        break;
      case DType::kF16:
        static_cast<uint16_t*>(target)[i] = float_to_f16(value);
        break;
      default:
        CHECK(false, "cannot convert to ", dtype_name(to));
    }
  }
}

}  // namespace millrace::ir
