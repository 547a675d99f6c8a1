// The addresses of a frame that lie outside its arena.
#pragma once

#include <span>
#include <string>

#include "base/function_ref.h"
#include "runtime/kv_pool.h"
#include "runtime/loaded_engine.h"
#include "runtime/program.h"

namespace millrace::runtime {

/// Address of an input by name; null: steps do not have it.
using InputAddress = FunctionRef<void*(const std::string& name)>;

/// Fills in weights, inputs and states. `weights`: index of each weight node's weight
/// (engine/weight_order.h). Throws Error when the graph wants an input that steps do not have.
void bind_frame(const LoadedEngine& loaded, const engine::PlannedGraph& planned,
                std::span<const size_t> weights, KvPool& kv, InputAddress input, Frame& frame);

}  // namespace millrace::runtime
