// plan_memory: one arena per regime; values that are not live at the same time share its bytes.
//
// Every value and every launch's workspace is an interval of launches and a size for the regime's
// largest step. Largest first, each is put at the lowest offset where it meets no interval already
// placed that is live with it (greedy by size; Pisarchyk and Lee, "Efficient memory management for
// deep neural net inference", 2020, section 5). The launches of a chain (ops::Tactic::run_chain)
// are intervals like others: they share bytes as if they went one by one.
#include <algorithm>

#include "base/error.h"
#include "compiler/liveness.h"
#include "compiler/passes/plan_passes.h"
#include "compiler/problem.h"

namespace millrace::compiler {
namespace {

constexpr int64_t kAlignment = 64;

struct Item {
  int32_t begin, end;  // launches, both inclusive
  int64_t bytes;
  engine::PlannedBuffer* target;
};

int64_t aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Places the items and returns the size of the arena.
int64_t place(const std::vector<Item>& items) {
  std::vector<const Item*> largest_first;
  for (const Item& item : items)
    largest_first.push_back(&item);
  std::sort(largest_first.begin(), largest_first.end(), [](const Item* a, const Item* b) {
    return a->bytes != b->bytes ? a->bytes > b->bytes : a < b;  // of equals, the first
  });
  int64_t arena = 0;
  std::vector<const Item*> placed;  // by offset
  for (const Item* item : largest_first) {
    int64_t offset = 0;
    for (const Item* other : placed) {
      if (other->begin > item->end || other->end < item->begin) continue;
      if (other->target->offset - offset >= item->bytes) break;
      offset = std::max(offset, aligned(other->target->offset + other->bytes));
    }
    *item->target = {offset, item->bytes};
    arena = std::max(arena, aligned(offset + item->bytes));
    const auto place = std::upper_bound(
        placed.begin(), placed.end(), item,
        [](const Item* a, const Item* b) { return a->target->offset < b->target->offset; });
    placed.insert(place, item);
  }
  return arena;
}

// The largest workspace that any of a launch's tactics wants in this regime.
int64_t workspace_bytes(const engine::PlannedGraph& engine, const engine::PlannedLaunch& launch,
                        const ir::Bindings& maxima, const device::Properties& device) {
  const ir::NodeId id = engine.graph.order()[static_cast<size_t>(launch.node)];
  const std::string symbol = rows_symbol(engine.graph, id);
  const int64_t max_rows = symbol.empty() ? 1 : maxima.at(symbol);
  int64_t bytes = 0;
  for (const engine::TacticChoice& choice : launch.choices) {
    ir::Bindings sizes = maxima;
    if (!symbol.empty()) sizes.set(symbol, std::min(choice.max_rows, max_rows));
    const Problem problem = make_problem(engine.graph, id, sizes);
    for (const ops::Tactic& tactic : problem.op->tactics) {
      if (choice.tactic == tactic.name && tactic.workspace != nullptr) {
        bytes = std::max(bytes, tactic.workspace(problem.launch(), device));
      }
    }
    if (choice.max_rows >= max_rows) break;
  }
  return bytes;
}

}  // namespace

void plan_memory(engine::PlannedGraph& engine, const device::Properties& device) {
  const std::vector<Live> live = live_ranges(engine);
  for (engine::RegimePlan& regime : engine.regimes) {
    const ir::Bindings maxima(regime.maxima);
    regime.values.assign(live.size(), {});
    regime.workspaces.assign(engine.launches.size(), {});
    std::vector<Item> items;
    for (size_t v = 0; v < live.size(); ++v) {
      if (!live[v].needs_memory || live[v].root != static_cast<ir::ValueId>(v)) continue;
      const ir::TensorType& type = engine.graph.type(static_cast<ir::ValueId>(v));
      const int64_t bytes = maxima.count(type.shape) * ir::dtype_size(type.dtype);
      items.push_back({live[v].begin, live[v].end, bytes, &regime.values[v]});
    }
    for (size_t i = 0; i < engine.launches.size(); ++i) {
      const int64_t bytes = workspace_bytes(engine, engine.launches[i], maxima, device);
      const auto launch = static_cast<int32_t>(i);
      if (bytes > 0) items.push_back({launch, launch, bytes, &regime.workspaces[i]});
    }
    regime.arena_bytes = place(items);
    for (size_t v = 0; v < live.size(); ++v) {
      if (live[v].needs_memory) regime.values[v] = regime.values[static_cast<size_t>(live[v].root)];
    }
  }
}

void verify_memory_plan(const engine::PlannedGraph& engine) {
  // Replays the launches: `owner` says which root's bytes lie where, and reading what another has
  // overwritten is a fault.
  const std::vector<Live> live = live_ranges(engine);
  const auto fail = [](const engine::RegimePlan& regime, const std::string& what) {
    throw_failed(str("invalid memory plan: ", what), str("regime ", regime.name),
                 "this is a bug in Millrace");
  };
  for (const engine::RegimePlan& regime : engine.regimes) {
    const ir::Bindings maxima(regime.maxima);
    struct Held {
      ir::ValueId root;
      int64_t begin, end;
    };
    std::vector<Held> held;
    const auto take = [&](ir::ValueId root, const engine::PlannedBuffer& b, size_t launch) {
      if (b.bytes == 0) return;
      if (b.offset % kAlignment != 0 || b.offset + b.bytes > regime.arena_bytes) {
        fail(regime, str("launch ", launch, " writes outside the arena"));
      }
      for (const Held& h : held) {
        if (h.root != root && h.begin < b.offset + b.bytes && b.offset < h.end) {
          fail(regime, str("launch ", launch, " overwrites value ", h.root, ", still needed"));
        }
      }
    };
    for (size_t i = 0; i < engine.launches.size(); ++i) {
      const auto position = static_cast<size_t>(engine.launches[i].node);
      const ir::Node& node = engine.graph.node(engine.graph.order()[position]);
      std::erase_if(held, [&](const Held& h) {
        return live[static_cast<size_t>(h.root)].end < static_cast<int32_t>(i);
      });
      for (const ir::ValueId out : node.outputs) {
        const Live& l = live[static_cast<size_t>(out)];
        if (!l.needs_memory) continue;
        const engine::PlannedBuffer& b = regime.values[static_cast<size_t>(out)];
        const ir::TensorType& type = engine.graph.type(out);
        if (b.bytes < maxima.count(type.shape) * ir::dtype_size(type.dtype)) {
          fail(regime, str("value ", out, " of ", node.op, " is too small"));
        }
        take(l.root, b, i);
        held.push_back({l.root, b.offset, b.offset + b.bytes});
      }
      take(ir::kNone, regime.workspaces[i], i);
    }
  }
}

}  // namespace millrace::compiler
