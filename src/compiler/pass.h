// Passes rewrite the graph; the pipeline names, times, dumps, verifies and can switch off each of
// them.
#pragma once

#include <string>
#include <vector>

#include "device/device.h"
#include "ir/graph.h"

namespace millrace::compiler {

struct Pass {
  const char* name;
  void (*run)(ir::Graph& graph);
  bool required = false;   // nothing can run without it: --disable-pass refuses
  bool cuda_only = false;  // makes what only CUDA tactics do well
  bool rounds_x = false;   // lets products round what a CPU has in float
};

struct PassTime {
  std::string name;
  double ms = 0;
  bool changed = false;
};

struct PassOptions {
  std::string dump_folder;            // empty: no dumps
  std::vector<std::string> disabled;  // names of passes to leave out
  device::Kind device = device::Kind::kCpu;
  bool may_round_x = false;  // arithmetic is bf16 and need not be the same for any batch
};

/// Runs the device's passes in order. After each: the graph is verified, and written to
/// `NN_NAME.ir` in the dump folder when it changed. Throws Error on an unknown or required name in
/// `disabled`.
std::vector<PassTime> run_passes(ir::Graph& graph, const std::vector<Pass>& passes,
                                 const PassOptions& options);

/// Structure as ir::verify, and every node's outputs as its op's shape rule gives them.
void verify_ops(const ir::Graph& graph, const std::string& where);

}  // namespace millrace::compiler
