// A device that is a CPU underneath: tests change what they want to see or to pretend.
#pragma once

#include <memory>
#include <string>

#include "device/device.h"

namespace millrace {

class ForwardingDevice : public device::Device {
 public:
  const device::Properties& properties() const override { return cpu_->properties(); }
  device::Queue& queue() override { return cpu_->queue(); }
  std::unique_ptr<device::Memory> allocate(int64_t bytes, const std::string& purpose) override {
    return cpu_->allocate(bytes, purpose);
  }
  std::unique_ptr<device::Memory> allocate_host(int64_t bytes, const std::string& p) override {
    return cpu_->allocate_host(bytes, p);
  }
  void copy_to_device(void* target, const void* source, int64_t bytes) override {
    cpu_->copy_to_device(target, source, bytes);
  }
  void copy_to_host(void* target, const void* source, int64_t bytes) override {
    cpu_->copy_to_host(target, source, bytes);
  }
  void enqueue_copy_to_host(void* target, const void* source, int64_t bytes) override {
    cpu_->enqueue_copy_to_host(target, source, bytes);
  }
  void synchronize() override { cpu_->synchronize(); }
  std::unique_ptr<device::Event> make_event() override { return cpu_->make_event(); }
  std::unique_ptr<device::CapturedGraph> capture(FunctionRef<void()> work) override {
    return cpu_->capture(work);
  }
  std::unique_ptr<device::Hold> hold() override { return cpu_->hold(); }
  bool is_asynchronous() const override { return cpu_->is_asynchronous(); }
  int64_t free_bytes() const override { return cpu_->free_bytes(); }

 private:
  const std::unique_ptr<device::Device> cpu_ = device::make_cpu_device(1);
};

}  // namespace millrace
