// select_chains: which consecutive launches go as one, by the number of their rows.
//
//   matmul o_proj  matmul gate_up  matmul down_proj  matmul qkv    T <= 2: matmul_chain_cuda
//                                                                  T <= 128: matmul_series_cuda
//
// Launches are consecutive where no other stands between them in a step of generated tokens. The
// runtime finds the chains again by the tactics (ops::chain_length).
#include <algorithm>

#include "base/check.h"
#include "compiler/passes/plan_passes.h"
#include "ops/common/chain.h"

namespace millrace::compiler {
namespace {

// The tactic for more than `above` and at most `most` rows becomes this one.
void set_tactic(std::vector<engine::TacticChoice>& choices, int64_t above, int64_t most,
                const std::string& tactic) {
  std::vector<engine::TacticChoice> changed;
  const auto add = [&](int64_t max_rows, const std::string& name) {
    if (!changed.empty() && changed.back().tactic == name) {
      changed.back().max_rows = max_rows;
    } else {
      changed.push_back({max_rows, name});
    }
  };
  int64_t begin = 0;
  for (const engine::TacticChoice& choice : choices) {
    if (begin < above) add(std::min(choice.max_rows, above), choice.tactic);
    if (begin < most && choice.max_rows > above) add(std::min(choice.max_rows, most), tactic);
    if (choice.max_rows > most) add(choice.max_rows, choice.tactic);
    begin = choice.max_rows;
  }
  choices = std::move(changed);
}

const ops::Tactic* find_tactic(const ops::Op& op, const std::string& name) {
  const auto it = std::find_if(op.tactics.begin(), op.tactics.end(),
                               [&](const ops::Tactic& t) { return name == t.name; });
  CHECK(it != op.tactics.end(), "no tactic of ", op.name, " is called ", name);
  return &*it;
}

const ops::Tactic* tactic_for(const ops::Op& op, const engine::PlannedLaunch& launch,
                              int64_t rows) {
  for (const engine::TacticChoice& choice : launch.choices) {
    if (rows <= choice.max_rows) return find_tactic(op, choice.tactic);
  }
  return find_tactic(op, launch.choices.back().tactic);
}

class ChainSelector {
 public:
  ChainSelector(engine::PlannedGraph& engine, ChainTactic tactic, IsFaster is_faster)
      : engine_(engine),
        maxima_(engine.regimes[0].maxima),
        tactic_(tactic),
        is_faster_(is_faster) {}

  void run() {
    // The head may run again on other rows, so no chain reaches across its begin.
    const auto head = static_cast<size_t>(engine_.head_begin);
    for (const auto& [begin, end] :
         {std::pair{size_t{0}, head}, std::pair{head, engine_.launches.size()}}) {
      std::vector<engine::PlannedLaunch*> neighbours;
      std::string symbol;
      for (size_t i = begin; i < end; ++i) {
        const ir::NodeId id = node(engine_.launches[i]);
        const ops::Op& op = *ops::find_op(engine_.graph.node(id).op);
        if (op.phase == ops::Phase::kContext) continue;
        const std::string rows = rows_symbol(engine_.graph, id);
        if (rows != symbol) divide(neighbours, symbol);
        symbol = rows;
        neighbours.push_back(&engine_.launches[i]);
      }
      divide(neighbours, symbol);
    }
  }

 private:
  ir::NodeId node(const engine::PlannedLaunch& launch) const {
    return engine_.graph.order()[static_cast<size_t>(launch.node)];
  }

  // Finds the chains among neighbours with one symbol for their rows, and leaves the list empty.
  void divide(std::vector<engine::PlannedLaunch*>& neighbours, const std::string& symbol) {
    if (!symbol.empty()) {
      const int64_t max_rows = std::min(maxima_.at(symbol), kMaxTimedRows);
      int64_t above = 0;
      for (int64_t rows = 1; above < max_rows; rows = std::min(2 * rows, max_rows)) {
        choose(neighbours, symbol, above, rows);
        above = rows;
      }
    }
    neighbours.clear();
  }

  std::vector<Flow> flow(std::span<engine::PlannedLaunch* const> launches) const {
    std::vector<Flow> flow;
    for (size_t to = 0; to < launches.size(); ++to) {
      const std::vector<ir::ValueId>& inputs = engine_.graph.node(node(*launches[to])).inputs;
      for (size_t from = 0; from < to; ++from) {
        const ir::ValueId out = engine_.graph.node(node(*launches[from])).outputs[0];
        for (size_t input = 0; input < inputs.size(); ++input) {
          if (inputs[input] == out) flow.push_back({to, input, from});
        }
      }
    }
    return flow;
  }

  void choose(const std::vector<engine::PlannedLaunch*>& neighbours, const std::string& symbol,
              int64_t above, int64_t rows) {
    const ir::Bindings sizes = sizes_of_rows(maxima_, symbol, rows);
    std::vector<Problem> problems;
    std::vector<ops::ChainLink> links;
    for (const engine::PlannedLaunch* launch : neighbours) {
      problems.push_back(make_problem(engine_.graph, node(*launch), sizes));
      links.push_back({tactic_(problems.back()), rows});
    }
    size_t length = 0;
    for (size_t i = 0; i < links.size(); i += length) {
      length = ops::chain_length(std::span(links).subspan(i));
      if (length == 1) continue;
      Chain chain{.problems = {}, .alone = {}, .tactic = links[i].tactic, .flow = {}};
      for (size_t k = i; k < i + length; ++k) {
        chain.problems.push_back(problems[k]);
        chain.alone.push_back(tactic_for(*problems[k].op, *neighbours[k], rows));
      }
      chain.flow = flow(std::span(neighbours).subspan(i, length));
      if (!is_faster_(chain)) continue;
      for (size_t k = i; k < i + length; ++k)
        set_tactic(neighbours[k]->choices, above, rows, chain.tactic->name);
    }
  }

  engine::PlannedGraph& engine_;
  const ir::Bindings maxima_;
  ChainTactic tactic_;
  IsFaster is_faster_;
};

}  // namespace

void select_chains(engine::PlannedGraph& engine, ChainTactic tactic, IsFaster is_faster) {
  ChainSelector(engine, tactic, is_faster).run();
}

void select_chains(engine::PlannedGraph& engine, const device::Device& device, Profiler& profiler) {
  if (engine.regimes.size() < 2) return;  // an encoder: it generates nothing
  const device::Properties& properties = device.properties();
  const auto chain_tactic = [&](const Problem& problem) -> const ops::Tactic* {
    for (const ops::Tactic& tactic : problem.op->tactics) {
      if (tactic.device != properties.kind || tactic.run_chain == nullptr) continue;
      if (tactic.why_not == nullptr || tactic.why_not(problem.launch(), properties).empty()) {
        return &tactic;
      }
    }
    return nullptr;
  };
  select_chains(engine, chain_tactic,
                [&](const Chain& chain) { return profiler.is_faster(chain); });
}

}  // namespace millrace::compiler
