#include "checkpoint/safetensors_writer.h"

#include "checkpoint/safetensors.h"
#include "checkpoint/test_folder.h"

namespace millrace {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

TEST(SafetensorsWriter, WritesWhatTheFormatDescribes) {
  const TestFolder folder;
  const std::vector<SafetensorsWriter::Tensor> tensors = {{"b \"quoted\"", ir::DType::kF32, {2, 1}},
                                                          {"a", ir::DType::kU8, {3}},
                                                          {"none", ir::DType::kI64, {0}}};
  {
    SafetensorsWriter writer(folder.path("out.safetensors"), tensors, {{"format", "pt"}});
    const std::string_view data = "12345678abc";
    writer.write(std::as_bytes(std::span(data.substr(0, 5))));
    writer.write(std::as_bytes(std::span(data.substr(5))));
    EXPECT_FALSE(std::filesystem::exists(folder.path("out.safetensors")));
    writer.commit();
  }
  // Header and offsets as the specification of the format gives them, padded to 64 bytes.
  std::string header =
      R"({"__metadata__":{"format":"pt"},"b \"quoted\"":{"dtype":"F32","shape":[2,1],)"
      R"("data_offsets":[0,8]},"a":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},)"
      R"("none":{"dtype":"I64","shape":[0],"data_offsets":[11,11]}})";
  header.append(64 - (8 + header.size()) % 64, ' ');
  const std::string bytes = read_file(folder.path("out.safetensors"));
  EXPECT_EQ(bytes, safetensors_bytes(header, "12345678abc"));
  EXPECT_EQ(parse_safetensors(std::as_bytes(std::span(bytes)), "out").entries.size(), 3u);
}

TEST(SafetensorsWriter, WithoutCommitNothingIsLeft) {
  const TestFolder folder;
  const std::vector<SafetensorsWriter::Tensor> tensors = {{"a", ir::DType::kU8, {3}}};
  {
    const SafetensorsWriter writer(folder.path("out.safetensors"), tensors);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace millrace
