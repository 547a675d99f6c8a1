#include "ops/harness/guarded_buffer.h"

#include "base/check.h"

namespace millrace::ops {

GuardedBuffer::GuardedBuffer(device::Device& device, int64_t bytes, std::byte guard, int64_t shift)
    : device_(&device), size_(bytes), shift_(shift), guard_(guard) {
  memory_ = device.allocate(bytes + shift + 2 * kGuardBytes, "op harness");
  const std::vector<std::byte> guards(static_cast<size_t>(kGuardBytes + shift), guard);
  device.copy_to_device(memory_->data(), guards.data(), kGuardBytes + shift);
  device.copy_to_device(data() + bytes, guards.data(), kGuardBytes);
}

void GuardedBuffer::upload(std::span<const std::byte> bytes) {
  CHECK(static_cast<int64_t>(bytes.size()) == size_);
  if (size_ > 0) device_->copy_to_device(data(), bytes.data(), size_);
}

std::vector<std::byte> GuardedBuffer::download() const {
  std::vector<std::byte> bytes(static_cast<size_t>(size_));
  if (size_ > 0) device_->copy_to_host(bytes.data(), data(), size_);
  return bytes;
}

std::optional<int64_t> GuardedBuffer::changed_guard() const {
  const int64_t front = kGuardBytes + shift_;
  std::vector<std::byte> bytes(static_cast<size_t>(front));
  device_->copy_to_host(bytes.data(), memory_->data(), front);
  for (int64_t i = front - 1; i >= 0; --i) {
    if (bytes[static_cast<size_t>(i)] != guard_) return i - front;
  }
  device_->copy_to_host(bytes.data(), data() + size_, kGuardBytes);
  for (int64_t i = 0; i < kGuardBytes; ++i) {
    if (bytes[static_cast<size_t>(i)] != guard_) return size_ + i;
  }
  return std::nullopt;
}

}  // namespace millrace::ops
