// A file that appears whole or not at all: written under a temporary name beside its place, synced,
// then renamed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

class AtomicFile {
 public:
  /// Opens `.NAME.PID.N.tmp` in the target's folder. Throws Error when that folder cannot be
  /// written.
  explicit AtomicFile(std::string path);
  /// Removes the temporary file unless commit() was called.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes) { write(bytes.data(), static_cast<int64_t>(bytes.size())); }
  void write(const void* data, int64_t bytes);
  /// Overwrites bytes already written.
  void write_at(int64_t offset, const void* data, int64_t bytes);
  /// Writes zeros up to the next multiple of `alignment`.
  void pad_to(int64_t alignment);
  int64_t size() const { return size_; }

  /// Makes the file durable and gives it its name, replacing one that is there.
  void commit();

 private:
  [[noreturn]] void fail(const char* doing) const;

  std::string path_, temporary_;
  int fd_ = -1;
  int64_t size_ = 0;
};

/// True for names that AtomicFile gives to files in the making.
bool is_temporary_name(std::string_view file_name);
/// Removes temporary files in `folder` whose process is gone. Never throws.
void remove_stale_temporaries(const std::string& folder);

}  // namespace millrace
