// Runs one tactic of an op on tensors in host memory: for tests against independent numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "ir/attrs.h"
#include "ir/dtype.h"

namespace millrace::ops {

struct HostTensor {
  ir::DType dtype = ir::DType::kF32;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;

  std::vector<float> floats() const;  // REQUIRES: a float type
  std::vector<int32_t> ints() const;  // REQUIRES: i32
};

/// Rounds to `dtype`.
HostTensor host_floats(std::vector<int64_t> shape, const std::vector<float>& values,
                       ir::DType dtype = ir::DType::kF32);
HostTensor host_ints(std::vector<int64_t> shape, const std::vector<int32_t>& values);

/// The outputs. `tactic` is a CPU tactic, the reference if empty. For ops without state.
std::vector<HostTensor> call_op(std::string_view op, const ir::Attrs& attrs,
                                const std::vector<HostTensor>& inputs,
                                std::string_view tactic = "");

}  // namespace millrace::ops
