// Memory of any length in which the same bytes stand again and again, and which takes no more than
// they take once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace millrace {

class RepeatedBytes {
 public:
  /// What is repeated must be whole pages.
  static int64_t page_bytes();

  /// Throws Error (kFailed) when the system has no memory for them.
  explicit RepeatedBytes(std::span<const std::byte> bytes);
  ~RepeatedBytes();
  RepeatedBytes(const RepeatedBytes&) = delete;
  RepeatedBytes& operator=(const RepeatedBytes&) = delete;

  /// `length` bytes, cut off in the last repetition; to be read. They outlive this object. Throws
  /// Error (kFailed) when the system has no addresses for them.
  std::shared_ptr<std::byte> map(int64_t length) const;

 private:
  int64_t size_;
  int file_ = -1;  // without a name
};

}  // namespace millrace
