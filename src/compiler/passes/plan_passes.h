// The passes that follow the graph's: they fill in an engine's plan.
#pragma once

#include <string>
#include <vector>

#include "base/function_ref.h"
#include "compiler/problem.h"
#include "compiler/tactics/profiler.h"
#include "device/device.h"
#include "engine/plan.h"

namespace millrace::compiler {

/// Tactics are timed with so many rows at most, but for those of prompts on a GPU.
inline constexpr int64_t kMaxTimedRows = 256;

/// Lists the launches (every node but inputs and weights) and gives each a tactic per bucket of
/// rows: the fastest feasible one, as measured, remembered or, without a profiler, the first.
/// Throws Error naming an op that has no tactic on this device.
/// `deterministic`: one tactic for every number of rows, so that a row's bits do not depend on how
/// many others there are.
void select_tactics(engine::PlannedGraph& engine, device::Device& device, Profiler* profiler,
                    bool deterministic = false);

/// Microseconds that a step loses where this node's launch, of so many rows, does not let the next
/// one start early: attention of generated tokens has much to do before it needs what a product
/// made.
double late_us(const ir::Graph& graph, ir::NodeId node, int64_t rows);

/// The tactic for chains that could run a launch as a part of one, or null.
using ChainTactic = FunctionRef<const ops::Tactic*(const Problem&)>;
/// Whether launches are to go as one.
using IsFaster = FunctionRef<bool(const Chain&)>;

/// Lets consecutive launches go as one (ops::Tactic::run_chain) where that is faster: in steps of
/// generated tokens, by buckets of rows. REQUIRES: select_tactics has run.
void select_chains(engine::PlannedGraph& engine, ChainTactic tactic, IsFaster is_faster);
/// With the device's tactics, as measured or remembered.
void select_chains(engine::PlannedGraph& engine, const device::Device& device, Profiler& profiler);

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
