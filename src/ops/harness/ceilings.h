// What the device can do at most, measured: the other side of every "% of ceiling".
#pragma once

#include <string_view>

#include "device/device.h"
#include "ops/op.h"

namespace millrace::ops {

struct Ceilings {
  double read_gb_per_s = 0;     // reading memory far larger than all caches, all threads together
  double fma_gflop_per_s = 0;   // f32 multiply-adds on registers; one counts as two operations
  double bf16_gflop_per_s = 0;  // bf16 products summed in f32; 0 where there is no instruction
};

/// Which of the ceilings of arithmetic holds: by the tactic's name, and on a GPU by the type of x.
struct Arithmetic {
  device::Kind device;
  std::string_view tactic;
  ir::DType x;
};

/// What an op needs at best on a device with these ceilings.
struct Bound {
  double seconds;
  bool by_memory;
};
Bound lower_bound(const Cost& cost, const Arithmetic& arithmetic, const Ceilings& ceilings);

/// Takes about half a second.
Ceilings measure_ceilings(device::Device& device);
/// Of a GPU; where the CUDA back end is built.
Ceilings measure_cuda_ceilings(device::Device& device);

}  // namespace millrace::ops
