// When the values of a graph are needed, in launch numbers.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/plan.h"

namespace millrace::compiler {

struct Live {
  int32_t begin = 0;  // the launch that makes it
  int32_t end = -1;   // the last launch that reads it, or one past the last launch for outputs
  ir::ValueId root =
      ir::kNone;              // the value whose memory it uses (itself, or an input it continues)
  bool needs_memory = false;  // false: inputs, weights, states and what nobody makes
};

/// By value id. Intervals of values that share memory are joined in their root's entry.
/// Launches from engine.head_begin on may run several times: what they read from before stays live
/// to the end.
std::vector<Live> live_ranges(const engine::PlannedGraph& engine);

}  // namespace millrace::compiler
