// Rules that a well-formed engine keeps, so that the runtime need not check again.
#pragma once

#include "engine/plan.h"

namespace millrace::engine {

/// Throws Error (kBadInput) naming `where` on the first rule that is broken: launches name nodes of
/// the graph in order, buffers lie inside their arena, weights have the size their slices give,
/// slices lie inside their file, limits are positive. `packed_bytes` is the size of the weight
/// section (for slices in the engine file itself).
void validate(const Engine& engine, int64_t packed_bytes, const std::string& where);

}  // namespace millrace::engine
