// Device memory between guard bytes: writes beside it are found, reads beside it see NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "device/device.h"

namespace millrace::ops {

class GuardedBuffer {
 public:
  /// What lies in front and behind. As floats of any width kNanGuard is NaN.
  static constexpr std::byte kNanGuard{0xff};
  static constexpr std::byte kCanary{0xa5};

  /// `shift` bytes past a 64-byte boundary.
  GuardedBuffer(device::Device& device, int64_t bytes, std::byte guard, int64_t shift = 0);

  std::byte* data() const { return memory_->data() + kGuardBytes + shift_; }
  int64_t size() const { return size_; }
  void upload(std::span<const std::byte> bytes);
  /// The bytes between the guards.
  std::vector<std::byte> download() const;
  /// Offset from data() of the guard byte nearest to it that changed, if one did.
  std::optional<int64_t> changed_guard() const;

 private:
  static constexpr int64_t kGuardBytes = 1024;  // keeps the alignment, wider than any vector

  device::Device* device_;
  int64_t size_, shift_;
  std::byte guard_;
  std::unique_ptr<device::Memory> memory_;
};

}  // namespace millrace::ops
