// String building without <format>, which GCC 12 lacks, and without <sstream>, which is slow to
// compile.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

inline void append(std::string& out, std::string_view s) {
  out += s;
}
inline void append(std::string& out, const char* s) {
  out += s;
}
inline void append(std::string& out, char c) {
  out += c;
}
inline void append(std::string& out, bool b) {
  out += b ? "true" : "false";
}

/// Integers in decimal; floats in the shortest form that reads back to the same value.
template <typename T>
  requires(std::integral<T> || std::floating_point<T>)
void append(std::string& out, T value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  out.append(buffer, end);
}

/// Concatenates strings, characters, booleans and numbers.
template <typename... Parts>
std::string str(const Parts&... parts) {
  std::string out;
  (append(out, parts), ...);
  return out;
}

/// `1.5 GiB`, `384 KiB`, `12 B`: three significant digits, binary units.
std::string format_bytes(int64_t bytes);

/// Joins the printed items with `separator`.
template <typename Range>
std::string join(const Range& items, std::string_view separator) {
  std::string out;
  bool first = true;
  for (const auto& item : items) {
    if (!first) out += separator;
    first = false;
    append(out, item);
  }
  return out;
}

}  // namespace millrace
