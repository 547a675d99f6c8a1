// The engine file: written whole or not at all, opened by mmap, validated before anything is
// believed. The bytes are described in docs/engine_format.md.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/mapped_file.h"
#include "engine/plan.h"

namespace millrace::engine {

inline constexpr uint32_t kFormatVersion = 2;
/// Weights are hashed in chunks of this size, so that a reader can check what it reads.
inline constexpr int64_t kChunkBytes = int64_t{4} << 20;

/// Fills `target` with the next `bytes` bytes of a weight in its final form.
using WeightProducer = std::function<void(const Weight& weight, std::string* bytes)>;

/// Writes an engine whose weights stay in the checkpoint (`produce` null) or are packed inside.
/// Throws Error (kFailed) when the disk is full or the folder cannot be written; nothing is left
/// behind then.
void write_engine(const Engine& engine, const std::string& path, const WeightProducer& produce);

/// An engine in memory, its file mapped for as long as this lives.
class EngineFile {
 public:
  /// Reads and validates all but the weights' bytes. Throws Error (kBadInput) saying in what way
  /// the file is not an engine that this program can run.
  static std::shared_ptr<const EngineFile> open(const std::string& path);

  /// An engine that was just built and is not kept: the same, without a file. Its weights are in
  /// the checkpoint.
  static std::shared_ptr<const EngineFile> from_memory(Engine engine);

  const Engine& engine() const { return engine_; }
  /// REQUIRES: the engine has a file, as one with packed weights does.
  const MappedFile& file() const { return *file_; }
  void check_intact() const {
    if (file_) file_->check_intact();
  }

  /// Checks the chunks that hold bytes [offset, offset + bytes) of the packed weights. Throws Error
  /// on damage.
  void verify_weights(int64_t offset, int64_t bytes) const;
  int64_t weights_offset() const { return weights_offset_; }
  int64_t weights_bytes() const { return weights_bytes_; }

 private:
  EngineFile() = default;
  void read(const MappedFile& file);
  void read_graphs(std::string_view text, uint64_t encoder_offset, const std::string& path);

  std::optional<MappedFile> file_;
  Engine engine_;
  int64_t weights_offset_ = 0, weights_bytes_ = 0;
  std::vector<uint64_t> chunk_hashes_;
};

/// True when the file begins like an engine of any version.
bool looks_like_engine(const std::string& path);

}  // namespace millrace::engine
