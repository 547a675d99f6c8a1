// Memory plans of random graphs, looked at by a third way of counting: which values a launch and
// those after it still read.
#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "base/error.h"
#include "compiler/passes/plan_passes.h"
#include "ops/add/add.h"
#include "ops/matmul/matmul.h"
#include "ops/op.h"

namespace millrace::compiler {
namespace {

using Random = std::mt19937;

ir::ValueId add_op(ir::Graph& graph, std::string_view op, std::vector<ir::ValueId> inputs) {
  return graph.node(ops::add_node(graph, op, std::move(inputs), {})).outputs[0];
}

ir::Graph new_graph() {
  ir::Graph graph("g");
  graph.add_symbol("T", 64);
  graph.add_symbol("S", 4);
  return graph;
}

ir::ValueId add_weight(ir::Graph& graph, int64_t n, int64_t k) {
  ir::Attrs attrs;
  attrs.set("name", str("w", graph.num_values()));
  return graph.add("weight", {}, {ir::DType::kF32, {n, k}}, attrs);
}

engine::Engine engine_of(ir::Graph graph) {
  engine::Engine engine;
  for (size_t i = 0; i < graph.order().size(); ++i) {
    const std::string& op = graph.node(graph.order()[i]).op;
    if (op != ir::kInputOp && op != ir::kWeightOp) {
      engine.launches.push_back({static_cast<int32_t>(i), {}});
    }
  }
  engine.head_begin = static_cast<int32_t>(engine.launches.size());
  engine.regimes = {{"context", {{"T", 64}, {"S", 4}}, 0, {}, {}},
                    {"generation", {{"T", 4}, {"S", 4}}, 0, {}, {}}};
  engine.graph = std::move(graph);
  return engine;
}

// Products and sums of three widths, each of random earlier values.
engine::Engine random_engine(Random& random) {
  ir::Graph graph = new_graph();
  std::vector<ir::ValueId> values = {graph.add_input("x", {ir::DType::kF32, {"T", 24}})};
  const auto width = [&](ir::ValueId v) { return graph.type(v).shape[1].value(); };
  for (size_t i = 5 + random() % 40; i > 0; --i) {
    const ir::ValueId a = values[random() % values.size()];
    const ir::ValueId b = values[random() % values.size()];
    if (random() % 2 == 0 && width(a) == width(b)) {
      values.push_back(add_op(graph, ops::Add::kName, {a, b}));
    } else {
      const int64_t n = std::vector<int64_t>{3, 24, 100}[random() % 3];
      values.push_back(add_op(graph, ops::Matmul::kName, {a, add_weight(graph, n, width(a))}));
    }
  }
  for (size_t i = 1 + random() % 2; i > 0; --i)
    graph.add_output(str("y", i), values[values.size() - i]);
  return engine_of(std::move(graph));
}

const ir::Node& node_of(const engine::Engine& engine, size_t launch) {
  return engine.graph.node(engine.graph.order()[static_cast<size_t>(engine.launches[launch].node)]);
}

// The values in memory while this launch runs: made by it or before it, and read by it, after it or
// by the caller.
std::vector<ir::ValueId> needed_at(const engine::Engine& engine, size_t launch) {
  std::vector<ir::ValueId> needed;
  for (size_t maker = 0; maker <= launch; ++maker) {
    const ir::ValueId v = node_of(engine, maker).outputs[0];
    bool read = maker == launch;
    for (size_t later = launch; later < engine.launches.size(); ++later) {
      const auto& in = node_of(engine, later).inputs;
      read = read || std::count(in.begin(), in.end(), v) > 0;
    }
    for (const ir::GraphOutput& output : engine.graph.outputs())
      read = read || output.value == v;
    if (read) needed.push_back(v);
  }
  return needed;
}

int64_t bytes_of(const engine::Engine& engine, ir::ValueId v, int64_t rows) {
  return rows * engine.graph.type(v).shape[1].value() * 4;
}

bool overlap(const engine::PlannedBuffer& a, const engine::PlannedBuffer& b) {
  return a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

void check_regime(const engine::Engine& engine, const engine::RegimePlan& regime, int64_t rows) {
  int64_t sum = 0, most = 0;
  for (size_t launch = 0; launch < engine.launches.size(); ++launch) {
    int64_t together = 0;
    const std::vector<ir::ValueId> needed = needed_at(engine, launch);
    for (const ir::ValueId a : needed) {
      const engine::PlannedBuffer& buffer = regime.values[static_cast<size_t>(a)];
      EXPECT_EQ(buffer.bytes, bytes_of(engine, a, rows));
      EXPECT_EQ(buffer.offset % 64, 0);
      EXPECT_LE(buffer.offset + buffer.bytes, regime.arena_bytes);
      together += buffer.bytes;
      for (const ir::ValueId b : needed) {
        EXPECT_TRUE(a == b || !overlap(buffer, regime.values[static_cast<size_t>(b)]))
            << "launch " << launch << ": %" << a << " and %" << b;
      }
    }
    most = std::max(most, together);
    sum += (bytes_of(engine, node_of(engine, launch).outputs[0], rows) + 63) / 64 * 64;
  }
  EXPECT_LE(regime.arena_bytes, sum);
  EXPECT_GE(regime.arena_bytes, most);
}

TEST(PlanMemory, KeepsLiveValuesApart) {
  Random random(11);
  for (int trial = 0; trial < 100; ++trial) {
    engine::Engine engine = random_engine(random);
    SCOPED_TRACE(print(engine.graph));
    plan_memory(engine, {});
    EXPECT_NO_THROW(verify_memory_plan(engine));
    check_regime(engine, engine.regimes[0], 64);
    check_regime(engine, engine.regimes[1], 4);
    if (testing::Test::HasFailure()) return;
  }
}

// x -> a -> b -> ... : while one is made, only the one before it is read.
engine::Engine chain(int length) {
  ir::Graph graph = new_graph();
  ir::ValueId v = graph.add_input("x", {ir::DType::kF32, {"T", 16}});
  for (int i = 0; i < length; ++i)
    v = add_op(graph, ops::Add::kName, {v, v});
  graph.add_output("y", v);
  return engine_of(std::move(graph));
}

TEST(PlanMemory, ReusesWhatNobodyReadsAnyMore) {
  engine::Engine engine = chain(10);
  plan_memory(engine, {});
  EXPECT_EQ(engine.regimes[0].arena_bytes, 2 * 64 * 16 * 4);
  EXPECT_EQ(engine.regimes[1].arena_bytes, 2 * 4 * 16 * 4);
}

// The head may run again on other rows: what it reads from the body stays to the end, through
// launches of the head that come after the last reader.
TEST(PlanMemory, KeepsWhatTheHeadReads) {
  engine::Engine engine = chain(10);
  engine.head_begin = 5;
  plan_memory(engine, {});
  const engine::PlannedBuffer& kept =
      engine.regimes[0].values[static_cast<size_t>(node_of(engine, 4).outputs[0])];
  for (size_t later = 5; later < 10; ++later) {
    EXPECT_FALSE(overlap(
        kept, engine.regimes[0].values[static_cast<size_t>(node_of(engine, later).outputs[0])]));
  }
  EXPECT_EQ(engine.regimes[0].arena_bytes, 3 * 64 * 16 * 4);
}

std::string fault(const engine::Engine& engine) {
  try {
    verify_memory_plan(engine);
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(VerifyMemoryPlan, CatchesEveryBufferPutOnALiveOne) {
  Random random(5);
  int planted = 0;
  for (int trial = 0; trial < 10; ++trial) {
    const engine::Engine engine = [&] {
      engine::Engine made = random_engine(random);
      plan_memory(made, {});
      return made;
    }();
    for (size_t launch = 0; launch < engine.launches.size(); ++launch) {
      const ir::ValueId made = node_of(engine, launch).outputs[0];
      for (const ir::ValueId other : needed_at(engine, launch)) {
        if (other == made) continue;
        engine::Engine broken = engine;
        auto& values = broken.regimes[1].values;
        values[static_cast<size_t>(made)].offset = values[static_cast<size_t>(other)].offset;
        broken.regimes[1].arena_bytes = int64_t{1} << 30;
        ASSERT_NE(fault(broken).find("still needed"), std::string::npos);
        ++planted;
      }
    }
  }
  EXPECT_GT(planted, 100);
}

TEST(VerifyMemoryPlan, CatchesBuffersTooSmallOrOutside) {
  engine::Engine engine = chain(3);
  plan_memory(engine, {});
  const auto first = static_cast<size_t>(node_of(engine, 0).outputs[0]);
  ASSERT_EQ(fault(engine), "none");

  engine::Engine small = engine;
  small.regimes[0].values[first].bytes -= 4;
  EXPECT_NE(fault(small).find("too small"), std::string::npos);

  engine::Engine outside = engine;
  outside.regimes[1].arena_bytes -= 64;
  EXPECT_NE(fault(outside).find("outside the arena"), std::string::npos);
  EXPECT_NE(fault(outside).find("generation"), std::string::npos);

  engine::Engine crooked = engine;
  crooked.regimes[0].values[first].offset += 4;
  EXPECT_NE(fault(crooked), "none");
}

}  // namespace
}  // namespace millrace::compiler
