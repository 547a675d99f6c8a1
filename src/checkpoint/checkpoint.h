// The weights of a folder as published on Hugging Face: model.safetensors, or shards listed in
// model.safetensors.index.json. Files are mapped; tensors are views into them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "ir/dtype.h"

namespace millrace {

struct CheckpointTensor {
  std::string name;
  ir::DType dtype = ir::DType::kF32;
  std::vector<int64_t> shape;
  int file_index = 0;
  int64_t offset = 0;  // of the first byte, in the file
  std::span<const std::byte>
      bytes;  // row-major, little-endian; perhaps not aligned to the element size

  /// Elements: the product of the shape.
  int64_t count() const;
};

/// What identifies a file's content without reading it whole.
struct CheckpointFile {
  std::string path;
  int64_t size = 0;
  int64_t mtime_ns = 0;
  uint64_t header_hash = 0;  // XXH3 of the safetensors header, its length field included
};

class Checkpoint {
 public:
  /// Opens and checks all weight files of the folder. A missing, damaged or hostile file is bad
  /// input.
  static Checkpoint open(const std::string& folder);

  const std::string& folder() const { return folder_; }

  /// All tensors, sorted by name.
  std::span<const CheckpointTensor> tensors() const { return tensors_; }
  /// Null when there is none of that name.
  const CheckpointTensor* find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }
  /// A missing tensor is bad input.
  const CheckpointTensor& get(std::string_view name) const;

  /// The weight files, in the order of their names; CheckpointTensor::file_index counts in it.
  std::span<const CheckpointFile> files() const { return files_; }
  const MappedFile& mapping(int file_index) const {
    return mappings_[static_cast<size_t>(file_index)];
  }
  /// Throws when a file was cut short, or could not be read, since it was opened: call it after
  /// using tensors.
  void check_intact() const;

 private:
  Checkpoint() = default;
  void add_file(const std::string& path);
  void sort_tensors();

  std::string folder_;
  std::vector<MappedFile> mappings_;
  std::vector<CheckpointFile> files_;
  std::vector<CheckpointTensor> tensors_;
};

}  // namespace millrace
