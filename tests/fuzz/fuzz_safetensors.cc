// The first byte chooses the parser: a safetensors file or the index of a sharded checkpoint.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "base/error.h"
#include "checkpoint/safetensors.h"

namespace {

// What callers rely on after a successful parse.
void check_file(std::span<const std::byte> file) {
  const millrace::SafetensorsHeader header = millrace::parse_safetensors(file, "fuzz");
  int64_t filled = header.size;
  for (const millrace::SafetensorsEntry& entry : header.entries) {
    CHECK(entry.begin == filled && entry.begin <= entry.end);
    int64_t bytes = millrace::ir::dtype_size(entry.dtype);
    for (const int64_t size : entry.shape)
      bytes *= size;
    CHECK(bytes == entry.end - entry.begin);
    filled = entry.end;
  }
  CHECK(filled == static_cast<int64_t>(file.size()));
}

void check_index(std::string_view text) {
  for (const auto& [tensor, file] : millrace::parse_safetensors_index(text, "fuzz")) {
    CHECK(!file.empty() && file.find_first_of(std::string_view("/\0", 2)) == std::string::npos &&
          file != "..");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto* text = reinterpret_cast<const char*>(data + 1);
  try {
    if (data[0] == 'i') {
      check_index({text, size - 1});
    } else {
      check_file({reinterpret_cast<const std::byte*>(data + 1), size - 1});
    }
  } catch (const millrace::Error& error) {
    CHECK(error.code() == millrace::ErrorCode::kBadInput);
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
