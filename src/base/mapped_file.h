// A regular file, mapped read-only.
//
// Reading a page of a mapped file that has been truncated, or that the disk fails to deliver,
// raises SIGBUS, which ends a process. Here it does not: a handler, installed with the first
// mapping, puts zeros from that page on to the end of the mapping and marks it as damaged. Whoever
// computed with the bytes asks afterwards (check_intact) and discards what it made of zeros. Faults
// anywhere else go to the handler that was there before.
//
// THREAD: a mapping may be read and asked by any number of threads. A thread that blocks SIGBUS has
// no protection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace millrace {

class MappedFile {
 public:
  /// Maps the whole file. Anything but a readable, regular file of at least one byte is bad input.
  static MappedFile open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  /// Time of the last change when it was opened, in nanoseconds since 1970.
  int64_t mtime_ns() const { return mtime_ns_; }

  /// True once a part could not be read; the bytes are then no longer those of the file.
  bool damaged() const;
  /// Throws when damaged.
  void check_intact() const;

  // Hints to the kernel on a part of the file; parts outside of it are ignored.
  void will_need(int64_t offset, int64_t count) const;
  void sequential(int64_t offset, int64_t count) const;
  /// The pages may leave memory: they have been copied elsewhere.
  void not_needed(int64_t offset, int64_t count) const;

 private:
  MappedFile() = default;
  void advise(int64_t offset, int64_t count, int advice) const;
  void unmap() noexcept;

  std::string path_;
  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
  int64_t mtime_ns_ = 0;
  int slot_ = -1;  // in the registry that the signal handler reads
};

}  // namespace millrace
