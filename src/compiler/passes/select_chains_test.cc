// Which launches are asked about, and what becomes of their tactics. How fast they are is made up.
#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "compiler/lower.h"
#include "compiler/passes/plan_passes.h"
#include "compiler/pipeline.h"
#include "compiler/trace_model.h"
#include "ops/matmul/matmul.h"

namespace millrace::compiler {
namespace {

void run_nothing(std::span<const ops::Launch>) {}

const ops::Tactic kChain = {.name = "chain", .run_chain = run_nothing};
constexpr int64_t kChainRows = 4;  // at most

constexpr auto kForProducts = [](const Problem& problem) -> const ops::Tactic* {
  const bool can = problem.op->name == ops::Matmul::kName && problem.in[0].dim(0) <= kChainRows;
  return can ? &kChain : nullptr;
};
constexpr auto kForOneRow = [](const Problem& problem) {
  return problem.in[0].dim(0) == 1 ? &kChain : nullptr;
};

// Weight rows of the problems, which tell them apart: "96 32".
std::string sizes_of(const Chain& chain) {
  std::vector<int64_t> rows;
  for (const Problem& problem : chain.problems)
    rows.push_back(problem.in[1].dim(0));
  return join(rows, " ");
}

// As select_tactics does, with the reference for all.
void list_launches(engine::PlannedGraph& engine, int64_t max_rows) {
  const auto& order = engine.graph.order();
  for (size_t i = 0; i < order.size(); ++i) {
    const std::string& op = engine.graph.node(order[i]).op;
    if (op == ir::kInputOp || op == ir::kWeightOp) continue;
    engine.launches.push_back(
        {static_cast<int32_t>(i), {{max_rows, ops::find_op(op)->tactics.back().name}}});
  }
}

// Two layers, as passes for CUDA leave them. Weight rows: Q, K and V 64, O 32, gate and up 96, down
// 32, head 50.
engine::Engine llama() {
  const HfConfig config = HfConfig::parse(
      R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 48,
          "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
          "vocab_size": 50, "max_position_embeddings": 64, "rms_norm_eps": 1e-5})",
      "config.json");
  BuildOptions options;
  options.dummy_seed = 1;
  options.max_batch_size = 16;
  options.max_num_tokens = 32;
  BuildReport report;
  TracedModel traced =
      trace_model({.model = "small", .config = config}, options, device::Kind::kCpu, &report);
  run_passes(traced.graph, pipeline(),
             {.dump_folder = "", .disabled = {}, .device = device::Kind::kCuda});
  engine::Engine engine = lower(std::move(traced), options);
  list_launches(engine, 32);
  return engine;
}

// Products behind each other: x [T, 8], every weight [8, 8].
engine::Engine products(int count) {
  engine::Engine engine;
  engine.graph.add_symbol("T", 64);
  ir::ValueId x = engine.graph.add_input("x", {ir::DType::kF32, {"T", 8}});
  for (int i = 0; i < count; ++i) {
    ir::Attrs name;
    name.set("name", str("w", i));
    const ir::ValueId w = engine.graph.add("weight", {}, {ir::DType::kF32, {8, 8}}, name);
    x = engine.graph.node(ops::add_node(engine.graph, ops::Matmul::kName, {x, w}, {})).outputs[0];
  }
  engine.graph.add_output("y", x);
  list_launches(engine, 64);
  engine.head_begin = static_cast<int32_t>(engine.launches.size());
  engine.regimes = {{"context", {{"T", 64}, {"S", 4}, {"L", 4}}, 0, {}, {}},
                    {"generation", {{"T", 4}, {"S", 4}, {"L", 4}}, 0, {}, {}}};
  return engine;
}

// What was asked, in order: "1: 32 96".
std::vector<std::string> asked(engine::Engine& engine, ChainTactic tactic) {
  std::vector<std::string> questions;
  select_chains(engine, tactic, [&](const Chain& chain) {
    questions.push_back(str(chain.problems[0].in[0].dim(0), ": ", sizes_of(chain)));
    return false;
  });
  return questions;
}

std::string choices_text(const engine::PlannedLaunch& launch) {
  std::vector<std::string> texts;
  for (const engine::TacticChoice& choice : launch.choices)
    texts.push_back(str(choice.max_rows, " ", choice.tactic));
  return join(texts, ", ");
}

using Questions = std::vector<std::string>;

// The head, which begins where rows without logits end, is asked about on its own.
// Of all products that of Q, K and V alone stands in front of attention.
TEST(SelectTactics, KnowsWhatStandsInFrontOfAttention) {
  const engine::Engine engine = llama();
  std::map<int64_t, int> late;  // products by weight rows
  for (const ir::NodeId id : engine.graph.order()) {
    const ir::Node& node = engine.graph.node(id);
    EXPECT_EQ(late_us(engine.graph, id, 512), 0) << node.op;
    if (node.op != ops::Matmul::kName || late_us(engine.graph, id, 128) == 0) continue;
    ++late[engine.graph.type(node.inputs[1]).shape[0].value()];
  }
  EXPECT_EQ(late, (std::map<int64_t, int>{{64, 2}}));
}

TEST(SelectChains, FindsTheProductsBetweenAttentions) {
  engine::Engine engine = llama();
  EXPECT_EQ(asked(engine, kForProducts),
            (Questions{"1: 32 96 32 64", "2: 32 96 32 64", "4: 32 96 32 64", "1: 32 96 32 50",
                       "2: 32 96 32 50", "4: 32 96 32 50"}));
}

// "2.1 < 0": input 1 of launch 2 is what launch 0 writes.
std::string flow_of(const Chain& chain) {
  std::vector<std::string> texts;
  for (const Flow& flow : chain.flow)
    texts.push_back(str(flow.to, ".", flow.input, " < ", flow.from));
  return join(texts, ", ");
}

// What attention gives and the residual before it come from elsewhere; down adds what o has made.
TEST(SelectChains, KnowsWhatFlowsBetweenLaunches) {
  engine::Engine engine = llama();
  std::vector<std::string> flows;
  select_chains(engine, kForProducts, [&](const Chain& chain) {
    if (chain.problems[0].in[0].dim(0) == 1) flows.push_back(flow_of(chain));
    return false;
  });
  const std::string wanted = "1.0 < 0, 2.2 < 0, 2.0 < 1, 3.0 < 2";
  EXPECT_EQ(flows, (Questions{wanted, wanted}));
}

TEST(SelectChains, NeverReachesIntoTheHead) {
  engine::Engine engine = products(5);
  engine.head_begin = 2;
  EXPECT_EQ(asked(engine, kForOneRow), (Questions{"1: 8 8", "1: 8 8 8"}));
}

TEST(SelectChains, ALaunchThatItCannotRunIsAnEnd) {
  engine::Engine engine = llama();
  const auto not_gated = [](const Problem& problem) -> const ops::Tactic* {
    const ops::Tactic* tactic = kForProducts(problem);
    return tactic == nullptr || problem.in[1].dim(0) == 96 ? nullptr : tactic;
  };
  EXPECT_EQ(asked(engine, not_gated),
            (Questions{"1: 32 64", "2: 32 64", "4: 32 64", "1: 32 50", "2: 32 50", "4: 32 50"}));
}

TEST(SelectChains, CutsLongOnesAsTheRuntimeDoes) {
  engine::Engine engine = products(ops::kMaxChain + 3);
  EXPECT_EQ(asked(engine, kForOneRow), (Questions{"1: 8 8 8 8 8 8 8 8", "1: 8 8 8"}));
  engine = products(ops::kMaxChain + 1);  // the last one is alone
  EXPECT_EQ(asked(engine, kForOneRow), (Questions{"1: 8 8 8 8 8 8 8 8"}));
}

// The others keep what they had, and neighbouring buckets with one tactic are joined.
TEST(SelectChains, ChangesTheRowsInWhichItIsFaster) {
  const auto chosen = [](const std::vector<int64_t>& faster) {
    engine::Engine engine = products(2);
    const ops::Op& op = *ops::find_op(ops::Matmul::kName);
    engine.launches[0].choices = {{2, "matmul_ref"}, {64, op.tactics.front().name}};
    const auto up_to_8 = [](const Problem& problem) {
      return problem.in[0].dim(0) <= 8 ? &kChain : nullptr;
    };
    select_chains(engine, up_to_8, [&](const Chain& chain) {
      const int64_t rows = chain.problems[0].in[0].dim(0);
      EXPECT_EQ(chain.tactic, &kChain);
      EXPECT_EQ(chain.alone[0], rows <= 2 ? &op.tactics.back() : &op.tactics.front()) << rows;
      EXPECT_EQ(chain.alone[1], &op.tactics.back());
      return std::find(faster.begin(), faster.end(), rows) != faster.end();
    });
    return choices_text(engine.launches[0]) + " | " + choices_text(engine.launches[1]);
  };
  const std::string first = str(ops::find_op(ops::Matmul::kName)->tactics.front().name);
  EXPECT_EQ(chosen({}), str("2 matmul_ref, 64 ", first, " | 64 matmul_ref"));
  EXPECT_EQ(chosen({1, 2, 4, 8}), str("8 chain, 64 ", first, " | 8 chain, 64 matmul_ref"));
  EXPECT_EQ(chosen({1}), str("1 chain, 2 matmul_ref, 64 ", first, " | 1 chain, 64 matmul_ref"));
  EXPECT_EQ(chosen({4}),
            str("2 matmul_ref, 4 chain, 64 ", first, " | 2 matmul_ref, 4 chain, 64 matmul_ref"));
  EXPECT_EQ(chosen({2, 8}), str("1 matmul_ref, 2 chain, 4 ", first, ", 8 chain, 64 ", first,
                                " | 1 matmul_ref, 2 chain, 4 matmul_ref, 8 chain, 64 matmul_ref"));
}

TEST(SelectChains, ThereMayBeSomeForManyRowsAlone) {
  engine::Engine engine = products(2);
  const auto many = [](const Problem& problem) {
    return problem.in[0].dim(0) > 8 ? &kChain : nullptr;
  };
  EXPECT_EQ(asked(engine, many), (Questions{"16: 8 8", "32: 8 8", "64: 8 8"}));
}

TEST(SelectChains, TheLastBucketIsTheLargestStep) {
  engine::Engine engine = products(2);
  engine.regimes[0].maxima[0].max = 3;
  EXPECT_EQ(asked(engine, kForProducts), (Questions{"1: 8 8", "2: 8 8", "3: 8 8"}));
}

}  // namespace
}  // namespace millrace::compiler
