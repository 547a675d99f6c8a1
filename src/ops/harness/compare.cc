#include "ops/harness/compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/str.h"

namespace millrace::ops {
namespace {

float float_at(const std::vector<std::byte>& bytes, ir::DType dtype, int64_t i) {
  float value = 0;
  ir::convert(dtype, bytes.data() + i * ir::dtype_size(dtype), ir::DType::kF32, &value, 1);
  return value;
}

/// Any element as text.
std::string print_at(const std::vector<std::byte>& bytes, ir::DType dtype, int64_t i) {
  if (ir::is_float(dtype)) {
    const float value = float_at(bytes, dtype, i);
    return std::isnan(value) ? "nan" : str(value);
  }
  const int64_t size = ir::dtype_size(dtype);
  int64_t value = 0;  // little-endian, sign-extended below
  std::memcpy(&value, bytes.data() + i * size, static_cast<size_t>(size));
  const int shift = static_cast<int>(64 - 8 * size);
  const bool is_signed = dtype == ir::DType::kI8 || dtype == ir::DType::kI16 ||
                         dtype == ir::DType::kI32 || dtype == ir::DType::kI64;
  if (is_signed) value = static_cast<int64_t>(static_cast<uint64_t>(value) << shift) >> shift;
  return str(value);
}

bool same_bits(const std::vector<std::byte>& a, const std::vector<std::byte>& b, int64_t i,
               int64_t size) {
  return std::memcmp(a.data() + i * size, b.data() + i * size, static_cast<size_t>(size)) == 0;
}

/// Bytes that are compared at once: most of a state is as it was, and a state can be gigabytes.
constexpr size_t kChunkBytes = 1 << 16;

bool same_chunk(const std::vector<std::byte>& a, const std::vector<std::byte>& b, size_t begin,
                size_t bytes) {
  return std::memcmp(a.data() + begin, b.data() + begin, bytes) == 0;
}

/// Of what was written.
double largest_magnitude(const OutputImage& image) {
  const int64_t size = ir::dtype_size(image.dtype);
  double largest = 0;
  std::vector<float> values;
  for (size_t begin = 0; begin < image.after.size(); begin += kChunkBytes) {
    const size_t bytes = std::min(kChunkBytes, image.after.size() - begin);
    if (image.is_state && same_chunk(image.after, *image.before, begin, bytes)) continue;
    values.resize(bytes / static_cast<size_t>(size));
    ir::convert(image.dtype, image.after.data() + begin, ir::DType::kF32, values.data(),
                static_cast<int64_t>(values.size()));
    const int64_t first = static_cast<int64_t>(begin) / size;
    for (size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) continue;
      const double magnitude = std::fabs(values[i]);
      if (magnitude <= largest) continue;
      const int64_t at = first + static_cast<int64_t>(i);
      if (image.is_state && same_bits(image.after, *image.before, at, size)) continue;
      largest = magnitude;
    }
  }
  return largest;
}

/// For elements whose bits differ. `limit` < 0: bits must be equal.
bool agrees(const OutputImage& got, const OutputImage& want, int64_t i, double limit) {
  if (limit < 0) return false;
  const int64_t size = ir::dtype_size(want.dtype);
  const float expected = float_at(want.after, want.dtype, i);
  const bool untouched = same_bits(want.after, *want.before, i, size);
  if (untouched && (want.is_state || std::isnan(expected))) return false;
  const float value = float_at(got.after, got.dtype, i);
  if (std::isnan(expected)) {
    return std::isnan(value) && !same_bits(got.after, *got.before, i, size);
  }
  return std::fabs(static_cast<double>(value) - expected) <= limit;
}

std::string report(const OutputImage& got, const OutputImage& want, double limit) {
  CHECK(got.dtype == want.dtype && got.after.size() == want.after.size());
  const int64_t size = ir::dtype_size(want.dtype);
  const auto count = static_cast<int64_t>(want.after.size()) / size;
  int64_t first = -1, bad = 0;
  for (size_t begin = 0; begin < want.after.size(); begin += kChunkBytes) {
    const size_t bytes = std::min(kChunkBytes, want.after.size() - begin);
    if (same_chunk(got.after, want.after, begin, bytes)) continue;
    const int64_t end = static_cast<int64_t>(begin + bytes) / size;
    for (int64_t i = static_cast<int64_t>(begin) / size; i < end; ++i) {
      if (same_bits(got.after, want.after, i, size) || agrees(got, want, i, limit)) continue;
      if (first < 0) first = i;
      ++bad;
    }
  }
  if (bad == 0) return "";
  std::string text = str("element ", first, ": got ", print_at(got.after, got.dtype, first),
                         same_bits(got.after, *got.before, first, size) ? " (not written)" : "",
                         ", want ", print_at(want.after, want.dtype, first),
                         same_bits(want.after, *want.before, first, size) ? " (not written)" : "",
                         "; ", bad, " of ", count, " are wrong");
  if (limit >= 0) text += str("; allowed difference ", limit);
  return text;
}

}  // namespace

std::string compare(const OutputImage& got, const OutputImage& want, double tolerance) {
  if (!ir::is_float(want.dtype)) return report(got, want, -1);
  const double relative = tolerance > 0 ? tolerance : default_tolerance(want.dtype);
  return report(got, want, relative * largest_magnitude(want));
}

std::string compare_bits(const OutputImage& a, const OutputImage& b) {
  return report(a, b, -1);
}

std::string compare_exact(const OutputImage& got, FunctionRef<double(int64_t)> exact,
                          double tolerance) {
  constexpr int64_t kSamples = 61;
  const int64_t size = ir::dtype_size(got.dtype);
  const auto count = static_cast<int64_t>(got.after.size()) / size;
  const bool is_float = ir::is_float(got.dtype);
  const double relative = tolerance > 0 ? tolerance : default_tolerance(got.dtype);
  const double limit = is_float ? relative * largest_magnitude(got) : 0;
  const int64_t step = count / kSamples + 1;  // odd steps would miss no column of a power of two
  for (int64_t i = 0; i < count; i += step | 1) {
    const double want = exact(i);
    double value = 0;
    if (is_float) {
      value = float_at(got.after, got.dtype, i);
    } else {
      int32_t whole = 0;
      CHECK(got.dtype == ir::DType::kI32);
      std::memcpy(&whole, got.after.data() + i * size, sizeof whole);
      value = whole;
    }
    if (std::fabs(value - want) <= limit || value == want) continue;
    if (std::isnan(value) && std::isnan(want)) continue;
    if (is_float && value == static_cast<float>(want)) continue;  // infinite in float
    return str("element ", i, ": got ", value, ", exact is ", want, "; allowed difference ", limit);
  }
  return "";
}

}  // namespace millrace::ops
