// The header of a safetensors file, and the index of a sharded checkpoint: parsed and checked in
// full before any byte of a tensor is used.
//
//   8 bytes   N, length of the header (little-endian)
//   N bytes   JSON: {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
//   "__metadata__": {...}},
//             padded with spaces
//   rest      the tensors, row-major; data_offsets count from here, leave no holes and do not
//   overlap
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/dtype.h"

namespace millrace {

struct SafetensorsEntry {
  std::string name;
  ir::DType dtype = ir::DType::kF32;
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // byte offsets in the file
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;        // in the order of their bytes
  std::map<std::string, std::string> metadata;  // "__metadata__"
  int64_t size = 0;                             // bytes before the first tensor: 8 + N
};

/// Parses the header of a whole file; `path` is for messages. Any defect throws bad input that
/// names file and tensor.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& path);

/// The weight map of model.safetensors.index.json: tensor name -> file name, a plain name without
/// folders.
std::map<std::string, std::string> parse_safetensors_index(std::string_view text,
                                                           const std::string& path);

/// `name` in quotes, as a message may show it: without control characters, shortened where it is
/// long.
std::string quote_name(std::string_view name);

}  // namespace millrace
