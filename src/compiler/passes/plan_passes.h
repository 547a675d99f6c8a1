// The passes that follow the graph's: they fill in an engine's plan.
#pragma once

#include <string>
#include <vector>

#include "compiler/tactics/profiler.h"
#include "device/device.h"
#include "engine/plan.h"

namespace millrace::compiler {

/// Lists the launches (every node but inputs and weights) and gives each a tactic per bucket of
/// rows: the fastest feasible one, as measured, remembered or, without a profiler, the first.
/// Throws Error naming an op that has no tactic on this device.
/// `deterministic`: one tactic for every number of rows, so that a row's bits do not depend on how
/// many others there are.
void select_tactics(engine::PlannedGraph& engine, device::Device& device, Profiler* profiler,
                    bool deterministic = false);

/// Places every value and workspace of each regime in one arena, whose maxima are given in
/// engine.regimes.
void plan_memory(engine::PlannedGraph& engine, const device::Properties& device);

/// Checks a plan against the graph, by other means than the planner's: no two buffers that are live
/// at the same time overlap, every value has memory for its largest size. Throws Error (kFailed) on
/// the first fault.
void verify_memory_plan(const engine::PlannedGraph& engine);

/// Cuts the generation regime's launches into runs that a device graph may capture and runs that it
/// may not.
void partition_capture(engine::PlannedGraph& engine);

}  // namespace millrace::compiler
