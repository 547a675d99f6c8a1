#include "ops/harness/guarded_buffer.h"

#include "base/check.h"

namespace millrace::ops {

GuardedBuffer::GuardedBuffer(device::Device& device, int64_t bytes, std::byte guard, int64_t shift)
    : device_(&device), size_(bytes), shift_(shift), guard_(guard) {
  const int64_t total = bytes + shift + 2 * kGuardBytes;
  memory_ = device.allocate(total, "op harness");
  const std::vector<std::byte> all(static_cast<size_t>(total), guard);
  device.copy_to_device(memory_->data(), all.data(), total);
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
