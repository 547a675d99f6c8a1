#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "base/error.h"
#include "base/hash.h"
#include "checkpoint/safetensors.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(
      fs::symlink_status(path, error));  // a broken link is there, and an error when opened
}

/// There is no safetensors file: says what there is instead.
[[noreturn]] void throw_no_weights(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth")) {
      throw_bad_input(str("the weights are in PyTorch's format (", name, "), which is not read"),
                      folder.string(),
                      "save the model again as safetensors: AutoModelForCausalLM.from_pretrained("
                      "FOLDER).save_pretrained(NEW_FOLDER) in transformers");
    }
    if (name.ends_with(".gguf")) {
      throw_bad_input(str("the weights are in GGUF format (", name, "), which is not read"),
                      folder.string(), "use the safetensors version of the model");
    }
  }
  throw_bad_input(str("no weights: neither ", kSingleFile, " nor ", kIndexFile), folder.string(),
                  "download the whole model, or use --dummy-weights");
}

/// The file names that the index mentions.
std::set<std::string> shard_names(const std::map<std::string, std::string>& weight_map) {
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map)
    names.insert(file);
  return names;
}

}  // namespace

int64_t CheckpointTensor::count() const {
  int64_t product = 1;
  for (const int64_t size : shape)
    product *= size;
  return product;
}

Checkpoint Checkpoint::open(const std::string& folder) {
  const fs::path path(folder);
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    throw_bad_input(is_there(path) ? "not a folder" : "no such folder", folder);
  }
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  if (is_there(path / kSingleFile)) {
    checkpoint.add_file((path / kSingleFile).string());
    checkpoint.sort_tensors();
    return checkpoint;
  }
  if (!is_there(path / kIndexFile)) throw_no_weights(path);
  const std::string index_path = (path / kIndexFile).string();
  const MappedFile index = MappedFile::open(index_path);
  const std::map<std::string, std::string> weight_map = parse_safetensors_index(
      {reinterpret_cast<const char*>(index.data()), static_cast<size_t>(index.size())}, index_path);
  index.check_intact();
  for (const std::string& name : shard_names(weight_map)) {
    if (!is_there(path / name)) {
      throw_bad_input(str("the index lists the file ", quote_name(name), ", which is missing"),
                      index_path, "download the whole model");
    }
    checkpoint.add_file((path / name).string());
  }
  checkpoint.sort_tensors();
  for (const auto& [tensor, file] : weight_map) {
    const CheckpointTensor* found = checkpoint.find(tensor);
    const std::string shard = (path / file).string();
    if (found == nullptr ||
        checkpoint.files_[static_cast<size_t>(found->file_index)].path != shard) {
      throw_bad_input(str("tensor ", quote_name(tensor), " is not in ", quote_name(file),
                          ", where the index puts it"),
                      index_path);
    }
  }
  return checkpoint;
}

const CheckpointTensor* Checkpoint::find(std::string_view name) const {
  const auto at = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const CheckpointTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

const CheckpointTensor& Checkpoint::get(std::string_view name) const {
  const CheckpointTensor* tensor = find(name);
  if (tensor == nullptr) {
    throw_bad_input(str("tensor ", quote_name(name), " is missing"), folder_,
                    "the weights do not fit config.json, or a file is incomplete");
  }
  return *tensor;
}

void Checkpoint::check_intact() const {
  for (const MappedFile& mapping : mappings_)
    mapping.check_intact();
}

void Checkpoint::add_file(const std::string& path) {
  MappedFile file = MappedFile::open(path);
  SafetensorsHeader header = parse_safetensors(file.bytes(), path);
  const auto header_bytes = file.bytes().first(static_cast<size_t>(header.size));
  files_.push_back({.path = path,
                    .size = file.size(),
                    .mtime_ns = file.mtime_ns(),
                    .header_hash = hash64(header_bytes)});
  file.check_intact();
  const int index = static_cast<int>(mappings_.size());
  for (SafetensorsEntry& entry : header.entries) {
    CheckpointTensor tensor;
    tensor.name = std::move(entry.name);
    tensor.dtype = entry.dtype;
    tensor.shape = std::move(entry.shape);
    tensor.file_index = index;
    tensor.offset = entry.begin;
    tensor.bytes = file.bytes().subspan(static_cast<size_t>(entry.begin),
                                        static_cast<size_t>(entry.end - entry.begin));
    tensors_.push_back(std::move(tensor));
  }
  mappings_.push_back(std::move(file));
}

void Checkpoint::sort_tensors() {
  if (tensors_.empty()) throw_bad_input("the checkpoint holds no tensors", folder_);
  std::sort(tensors_.begin(), tensors_.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(tensors_.begin(), tensors_.end(),
                         [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twice == tensors_.end()) return;
  const auto& [first, second] = std::minmax(twice->file_index, (twice + 1)->file_index);
  throw_bad_input(
      str("tensor ", quote_name(twice->name), " is also in ",
          quote_name(fs::path(files_[static_cast<size_t>(first)].path).filename().string())),
      files_[static_cast<size_t>(second)].path);
}

}  // namespace millrace
