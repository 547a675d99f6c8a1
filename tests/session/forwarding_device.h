// A device that is another underneath, a CPU unless said: tests change what they want to see or to
// pretend.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "device/device.h"

namespace millrace {

class ForwardingDevice : public device::Device {
 public:
  explicit ForwardingDevice(std::unique_ptr<device::Device> under = device::make_cpu_device(1))
      : under_(std::move(under)) {}
  const device::Properties& properties() const override { return under_->properties(); }
  device::Queue& queue() override { return under_->queue(); }
  std::unique_ptr<device::Memory> allocate(int64_t bytes, const std::string& purpose) override {
    return under_->allocate(bytes, purpose);
  }
  std::unique_ptr<device::Memory> allocate_host(int64_t bytes, const std::string& p) override {
    return under_->allocate_host(bytes, p);
  }
  void copy_to_device(void* target, const void* source, int64_t bytes) override {
    under_->copy_to_device(target, source, bytes);
  }
  void copy_to_host(void* target, const void* source, int64_t bytes) override {
    under_->copy_to_host(target, source, bytes);
  }
  void enqueue_copy_to_host(void* target, const void* source, int64_t bytes) override {
    under_->enqueue_copy_to_host(target, source, bytes);
  }
  void synchronize() override { under_->synchronize(); }
  std::unique_ptr<device::Event> make_event() override { return under_->make_event(); }
  std::unique_ptr<device::CapturedGraph> capture(FunctionRef<void()> work) override {
    return under_->capture(work);
  }
  std::unique_ptr<device::Hold> hold() override { return under_->hold(); }
  bool is_asynchronous() const override { return under_->is_asynchronous(); }
  int64_t free_bytes() const override { return under_->free_bytes(); }

 private:
  const std::unique_ptr<device::Device> under_;
};

}  // namespace millrace
