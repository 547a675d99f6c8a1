// Conversions between floating-point types: a loop for each pair of types, which the compiler
// vectorises where it can.
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>

#include "base/check.h"
#include "ir/dtype.h"

namespace millrace::ir {
namespace {

// Element i of an array at any address.
template <typename T>
T element(const void* source, int64_t i) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(source) + i * int64_t{sizeof(T)}, sizeof(T));
  return value;
}

/// target[i] = store(load(source[i]))
template <typename From, typename Load, typename To, typename Store>
void convert_all(const void* source, Load load, To* target, Store store, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    target[i] = store(load(element<From>(source, i)));
}

template <typename From, typename Load>
void convert_from(const void* source, Load load, DType to, void* target, int64_t count) {
  const auto to_bf16 = [](float value) { return float_to_bf16(value); };
  const auto to_f16 = [](float value) { return float_to_f16(value); };
  switch (to) {
    case DType::kF32:
      return convert_all<From>(source, load, static_cast<float*>(target), std::identity(), count);
    case DType::kBF16:
      return convert_all<From>(source, load, static_cast<uint16_t*>(target), to_bf16, count);
    case DType::kF16:
      return convert_all<From>(source, load, static_cast<uint16_t*>(target), to_f16, count);
    default:
      CHECK(false, "cannot convert to ", dtype_name(to));
  }
}

}  // namespace

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

void convert(DType from, const void* source, DType to, void* target, int64_t count) {
  if (count == 0) return;  // then pointers may be null
  if (from == to) {
    std::memcpy(target, source, static_cast<size_t>(count * dtype_size(from)));
    return;
  }
  const auto narrow = [](double value) { return static_cast<float>(value); };
  switch (from) {
    case DType::kF64:
      return convert_from<double>(source, narrow, to, target, count);
    case DType::kF32:
      return convert_from<float>(source, std::identity(), to, target, count);
    case DType::kBF16:
      return convert_from<uint16_t>(source, bf16_to_float, to, target, count);
    case DType::kF16:
      return convert_from<uint16_t>(source, f16_to_float, to, target, count);
    case DType::kF8E4M3:
      return convert_from<uint8_t>(source, f8e4m3_to_float, to, target, count);
    case DType::kF8E5M2:
      return convert_from<uint8_t>(source, f8e5m2_to_float, to, target, count);
    default:
      CHECK(false, "not a floating-point type: ", dtype_name(from));
  }
}

}  // namespace millrace::ir
