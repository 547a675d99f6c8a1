#include "checkpoint/safetensors_writer.h"

#include <array>

#include <nlohmann/json.hpp>

#include "base/check.h"

namespace millrace {
namespace {

constexpr size_t kAlignment = 64;  // of the first tensor; the format asks for 8

std::string make_header(std::span<const SafetensorsWriter::Tensor> tensors,
                        const std::map<std::string, std::string>& metadata, int64_t* data_size) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t at = 0;
  for (const SafetensorsWriter::Tensor& tensor : tensors) {
    CHECK(ir::dtype_size(tensor.dtype) > 0 && !header.contains(tensor.name), tensor.name);
    int64_t bytes = ir::dtype_size(tensor.dtype);
    for (const int64_t size : tensor.shape)
      bytes *= size;
    header[tensor.name] = {{"dtype", ir::safetensors_dtype_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", std::array{at, at + bytes}}};
    at += bytes;
  }
  *data_size = at;
  std::string text = header.dump();
  const size_t end = 8 + text.size();
  text.append((kAlignment - end % kAlignment) % kAlignment, ' ');
  return text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::span<const Tensor> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  const std::string header = make_header(tensors, metadata, &missing_);
  std::array<char, 8> length = {};
  for (size_t i = 0; i < length.size(); ++i) {
    length[i] = static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i) & 255);
  }
  file_.write(length.data(), static_cast<int64_t>(length.size()));
  file_.write(header);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  missing_ -= static_cast<int64_t>(bytes.size());
  CHECK(missing_ >= 0, "more bytes than the tensors have");
  file_.write(bytes.data(), static_cast<int64_t>(bytes.size()));
}

void SafetensorsWriter::commit() {
  CHECK(missing_ == 0, missing_, " bytes of the tensors were not written");
  file_.commit();
}

}  // namespace millrace
