// select_tactics: how each launch is run, by the number of its rows.
//
//   matmul f32[T, 384] bf16[1536, 384]   T <= 8: matmul_rows_avx2   T <= 8192: matmul_panels_avx2
//
// Buckets are powers of two up to the largest step; neighbouring buckets with one tactic are
// joined. Feasible tactics are timed (Profiler) up to kMaxTimedRows, on a GPU also with the rows of
// a prompt; other buckets take what won before if it can run, else the first that can. Tactics for
// chains are left to select_chains.
#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "compiler/passes/plan_passes.h"
#include "compiler/problem.h"
#include "ops/attention_generation/attention_generation.h"

namespace millrace::compiler {
namespace {

// Of a long prompt, whose time is that of its products. They are timed with so many rows, too,
// where that takes a millisecond and not, as on a CPU, seconds.
constexpr int64_t kPromptRows = 2048;

std::vector<const ops::Tactic*> feasible(const Problem& problem, const device::Properties& device) {
  std::vector<const ops::Tactic*> tactics;
  for (const ops::Tactic& tactic : problem.op->tactics) {
    if (tactic.device != device.kind || tactic.run_chain != nullptr) continue;
    if (tactic.why_not != nullptr && !tactic.why_not(problem.launch(), device).empty()) continue;
    tactics.push_back(&tactic);
  }
  return tactics;
}

class Selector {
 public:
  Selector(engine::PlannedGraph& engine, device::Device& device, Profiler* profiler,
           bool deterministic)
      : engine_(engine), device_(device), profiler_(profiler), deterministic_(deterministic) {}

  void run() {
    const auto& order = engine_.graph.order();
    engine_.launches.clear();
    for (size_t i = 0; i < order.size(); ++i) {
      const std::string& op = engine_.graph.node(order[i]).op;
      if (op == ir::kInputOp || op == ir::kWeightOp) continue;
      engine_.launches.push_back({static_cast<int32_t>(i), choices(order[i])});
    }
  }

 private:
  ir::Bindings bindings(const std::string& symbol, int64_t rows) const {
    return sizes_of_rows(ir::Bindings(engine_.regimes[0].maxima), symbol, rows);
  }

  std::vector<engine::TacticChoice> choices(ir::NodeId id) {
    const std::string symbol = rows_symbol(engine_.graph, id);
    const int64_t max_rows =
        symbol.empty() ? 1 : ir::Bindings(engine_.regimes[0].maxima).at(symbol);
    if (deterministic_) return {{max_rows, one_for_all(id, symbol, max_rows)->name}};
    std::vector<engine::TacticChoice> list;
    const ops::Tactic* last = nullptr;
    Profiler::Times times;
    for (int64_t rows = 1;; rows = std::min(2 * rows, max_rows)) {
      const ops::Tactic* chosen =
          choose(make_problem(engine_.graph, id, bindings(symbol, rows)), is_timed(rows, max_rows),
                 last, times, late_us(engine_.graph, id, rows));
      if (!list.empty() && list.back().tactic == chosen->name) {
        list.back().max_rows = rows;
      } else {
        list.push_back({rows, chosen->name});
      }
      last = chosen;
      if (rows >= max_rows) break;
    }
    return list;
  }

  bool is_timed(int64_t rows, int64_t max_rows) const {
    if (rows <= kMaxTimedRows) return true;
    return device_.is_asynchronous() && rows == std::min(max_rows, kPromptRows);
  }

  // The first batch-invariant tactic that can run one row as well as the most.
  const ops::Tactic* one_for_all(ir::NodeId id, const std::string& symbol, int64_t max_rows) {
    const auto few =
        feasible(make_problem(engine_.graph, id, bindings(symbol, 1)), device_.properties());
    const Problem largest = make_problem(engine_.graph, id, bindings(symbol, max_rows));
    for (const ops::Tactic* tactic : feasible(largest, device_.properties())) {
      if (!tactic->batch_invariant) continue;
      if (std::find(few.begin(), few.end(), tactic) != few.end()) return tactic;
    }
    throw_bad_input(str("no tactic runs every number of rows of ", largest.key()), largest.op->name,
                    "leave --deterministic out");
  }

  // `last` and `times` are of the same node with fewer rows.
  const ops::Tactic* choose(const Problem& problem, bool is_timed, const ops::Tactic* last,
                            Profiler::Times& times, double late_us) {
    const std::vector<const ops::Tactic*> tactics = feasible(problem, device_.properties());
    if (tactics.empty()) {
      const char* kind = device_.properties().kind == device::Kind::kCpu ? "CPU" : "CUDA";
      throw_bad_input(str("no ", kind, " tactic runs ", problem.key()), problem.op->name,
                      "use another --device");
    }
    // Attention's time depends on lengths that a single problem does not have; its tactics are in
    // order of preference.
    if (tactics.size() == 1 || profiler_ == nullptr || problem.has_state()) return tactics[0];
    if (!is_timed) {
      const bool still = std::find(tactics.begin(), tactics.end(), last) != tactics.end();
      return still ? last : tactics[0];
    }
    return profiler_->fastest(problem, tactics, &times, late_us);
  }

  engine::PlannedGraph& engine_;
  device::Device& device_;
  Profiler* profiler_;
  bool deterministic_;
};

}  // namespace

double late_us(const ir::Graph& graph, ir::NodeId node, int64_t rows) {
  constexpr double kAttentionUs = 4;  // a Llama of 8B, 32 to 128 rows on an H200
  constexpr int64_t kMaxRows = 256;   // more are prompts
  if (rows > kMaxRows) return 0;
  for (const ir::ValueId out : graph.node(node).outputs) {
    for (const ir::NodeId user : graph.users(out)) {
      if (graph.node(user).op == ops::AttentionGeneration::kName) return kAttentionUs;
    }
  }
  return 0;
}

void select_tactics(engine::PlannedGraph& engine, device::Device& device, Profiler* profiler,
                    bool deterministic) {
  Selector(engine, device, profiler, deterministic).run();
}

}  // namespace millrace::compiler
