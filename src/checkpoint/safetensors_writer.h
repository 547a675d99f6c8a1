// Writes a safetensors file: the header first, then each tensor's bytes as they come, so that
// results larger than memory can be written while they are made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "ir/dtype.h"

namespace millrace {

class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    ir::DType dtype = ir::DType::kF32;
    std::vector<int64_t> shape;
  };

  /// `tensors` come in the order of their bytes. The file appears at `path` with commit(), whole.
  SafetensorsWriter(const std::string& path, std::span<const Tensor> tensors,
                    const std::map<std::string, std::string>& metadata = {});

  /// The next bytes of the data: any number of tensors, or a part of one.
  void write(std::span<const std::byte> bytes);
  /// REQUIRES: all the bytes that the tensors promise have been written.
  void commit();

 private:
  AtomicFile file_;
  int64_t missing_ = 0;  // bytes
};

}  // namespace millrace
