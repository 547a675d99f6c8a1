// Ops that are called outside a graph (sampling, beams): each with the first tactic that can, and
// one scratch buffer for all.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "ops/op.h"

namespace millrace::runtime {

/// An op with its attributes.
struct OpCall {
  OpCall() = default;
  explicit OpCall(std::string_view name, const ir::Attrs& attrs = {});
  const ops::Op* op = nullptr;
  std::shared_ptr<const void> attributes;
};

class OpCalls {
 public:
  explicit OpCalls(device::Device& device) : device_(device) {}

  /// Room for a call on tensors of these types; before allocate().
  void reserve(const OpCall& call, std::vector<ops::Tensor> in, std::vector<ops::Tensor> out);
  void allocate();
  void run(const OpCall& call, std::vector<ops::Tensor> in, std::vector<ops::Tensor> out);
  int64_t bytes() const { return bytes_; }
  /// Calls of run() so far.
  int runs() const { return runs_; }

 private:
  const ops::Tactic& choose(const OpCall& call, const ops::Launch& launch) const;

  device::Device& device_;
  std::unique_ptr<device::Memory> scratch_;
  int64_t bytes_ = 64;
  int runs_ = 0;
};

/// Dense tensors of 4-byte elements.
ops::Tensor matrix_at(void* data, ir::DType dtype, int64_t rows, int64_t columns);
ops::Tensor vector_at(void* data, ir::DType dtype, int64_t count);

/// Bytes up to the next 64.
inline int64_t aligned_bytes(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

}  // namespace millrace::runtime
