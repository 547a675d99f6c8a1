// Whole builds of small models with generated weights, and what they refuse.
#include "compiler/build.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "base/error.h"
#include "checkpoint/test_folder.h"
#include "compiler/passes/plan_passes.h"
#include "compiler/pipeline.h"
#include "compiler/trace_model.h"
#include "ops/op.h"

namespace millrace::compiler {
namespace {

// A small model of each kind, without the closing brace.
const char* const kLlama =
    R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 48,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "vocab_size": 50, "max_position_embeddings": 64, "rms_norm_eps": 1e-5)";
const char* const kGpt2 =
    R"({"architectures": ["GPT2LMHeadModel"], "n_embd": 32, "n_head": 4, "n_layer": 2,
        "n_positions": 64, "vocab_size": 50, "layer_norm_epsilon": 1e-5)";

std::string as(const char* architecture, const std::string& more = "") {
  std::string text = kLlama;
  text.replace(text.find("LlamaForCausalLM"), 16, architecture);
  return text + more + "}";
}

std::vector<std::string> small_models() {
  return {
      as("LlamaForCausalLM"),
      as("LlamaForCausalLM", R"(, "tie_word_embeddings": true, "head_dim": 12)"),
      as("LlamaForCausalLM", R"(, "attention_bias": true, "mlp_bias": true)"),
      as("LlamaForCausalLM", R"(, "hidden_act": "gelu_pytorch_tanh", "num_key_value_heads": 1)"),
      as("MistralForCausalLM", R"(, "sliding_window": 8)"),
      as("Qwen2ForCausalLM", R"(, "use_sliding_window": true, "sliding_window": 8,
                                 "max_window_layers": 1)"),
      as("Qwen3ForCausalLM", R"(, "head_dim": 16, "tie_word_embeddings": true)"),
      std::string(kGpt2) + "}",
  };
}

HfConfig config(const std::string& text) {
  return HfConfig::parse(text, "config.json");
}

BuildOptions small_options() {
  BuildOptions options;
  options.dummy_seed = 1;
  options.max_batch_size = 4;
  options.max_num_tokens = 16;
  options.profile = false;
  return options;
}

engine::Engine build(const HfConfig& from, const BuildOptions& options = small_options(),
                     BuildReport* report = nullptr) {
  static const std::unique_ptr<device::Device> device = device::make_cpu_device(1);
  BuildReport unread;
  return build_engine({.model = "small", .config = from}, options, *device,
                      report != nullptr ? report : &unread);
}

std::set<std::string> ops_of(const engine::Engine& engine) {
  std::set<std::string> found;
  for (const engine::PlannedLaunch& launch : engine.launches) {
    found.insert(engine.graph.node(engine.graph.order()[static_cast<size_t>(launch.node)]).op);
  }
  return found;
}

// What a runtime takes for granted.
void check(const engine::Engine& engine) {
  verify_ops(engine.graph, "the built engine");
  EXPECT_NO_THROW(verify_memory_plan(engine));
  ASSERT_EQ(engine.graph.outputs().size(), 1u);
  EXPECT_EQ(engine.graph.outputs()[0].name, "logits");
  EXPECT_EQ(to_string(engine.graph.type(engine.graph.outputs()[0].value)),
            str("f32[L, ", engine.manifest.vocab_size, "]"));
  for (const engine::PlannedLaunch& launch : engine.launches) {
    const auto position = static_cast<size_t>(launch.node);
    const ops::Op* op = ops::find_op(engine.graph.node(engine.graph.order()[position]).op);
    ASSERT_NE(op, nullptr);
    ASSERT_FALSE(launch.choices.empty());
    int64_t rows = 0;
    for (const engine::TacticChoice& choice : launch.choices) {
      EXPECT_GT(choice.max_rows, rows);
      rows = choice.max_rows;
      EXPECT_TRUE(std::any_of(op->tactics.begin(), op->tactics.end(), [&](const ops::Tactic& t) {
        return choice.tactic == t.name;
      })) << choice.tactic;
    }
  }
  // Every launch belongs to one region, in order.
  int32_t next = 0;
  for (const engine::CaptureRegion& region : engine.captures) {
    EXPECT_EQ(region.begin, next);
    EXPECT_GT(region.end, region.begin);
    next = region.end;
  }
}

TEST(Build, SmallModelsOfEveryArchitecture) {
  for (const std::string& text : small_models()) {
    SCOPED_TRACE(text);
    const engine::Engine engine = build(config(text));
    check(engine);
    EXPECT_FALSE(ops_of(engine).contains("attention"));
    EXPECT_TRUE(ops_of(engine).contains("attention_generation"));
    const engine::Engine again = build(config(text));
    EXPECT_EQ(print(again.graph), print(engine.graph));
  }
}

TEST(Build, BundledModels) {
  for (const char* name : {"novelist-14m", "novelist-draft"}) {
    SCOPED_TRACE(name);
    check(build(HfConfig::load(str(MILLRACE_SOURCE_DIR, "/models/", name))));
  }
}

// Passes make a graph faster; each may be left out alone, and all together.
TEST(Build, WithoutEachPass) {
  std::vector<std::string> optional;
  for (const Pass& pass : pipeline()) {
    if (!pass.required) optional.emplace_back(pass.name);
  }
  for (const std::string& text : small_models()) {
    SCOPED_TRACE(text);
    BuildOptions options = small_options();
    options.disabled_passes = optional;
    check(build(config(text), options));
    for (const std::string& name : optional) {
      SCOPED_TRACE(name);
      options.disabled_passes = {name};
      check(build(config(text), options));
    }
  }
}

// Of a layer four products are left, with attention between them: what stands beside them is
// theirs.
TEST(Build, PassesForCudaLeaveProductsOnly) {
  BuildReport report;
  const HfConfig llama = config(as("LlamaForCausalLM"));
  TracedModel traced = trace_model({.model = "small", .config = llama}, small_options(),
                                   device::Kind::kCpu, &report);
  run_passes(traced.graph, pipeline(),
             {.dump_folder = "", .disabled = {}, .device = device::Kind::kCuda});
  constexpr int kLayers = 2;
  std::map<std::string, int> found;
  for (const ir::NodeId id : traced.graph.order()) {
    const ir::Node& node = traced.graph.node(id);
    ++found[node.op];
    if (node.op != "matmul") continue;
    for (const char* part : {"gated", "residual", "norm"})
      found[part] += node.attrs.find(part) != nullptr ? 1 : 0;
  }
  EXPECT_EQ(found["matmul"], 4 * kLayers + 1);
  EXPECT_EQ(found["gated"], kLayers);
  EXPECT_EQ(found["residual"], 2 * kLayers);
  EXPECT_EQ(found["norm"], 2 * kLayers + 1);
  for (const char* op : {"rms_norm", "add_rms_norm", "add", "gated_activation"})
    EXPECT_EQ(found[op], 0) << op;
}

// Parameters by hand: embedding and head 2 x 50 x 32; a layer: two norms 2 x 32, Q and O 2 x 32 x
// 32, K and V 2 x 16 x 32, feed-forward 3 x 48 x 32; a last norm 32.
TEST(Build, CountsParametersAndGroupsLayers) {
  const int64_t layer = 2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32;
  const engine::Engine plain = build(config(as("LlamaForCausalLM")));
  EXPECT_EQ(plain.manifest.parameters, 2 * 50 * 32 + 2 * layer + 32);
  ASSERT_EQ(plain.kv_groups.size(), 1u);
  EXPECT_EQ(plain.kv_groups[0].layers.size(), 2u);
  EXPECT_EQ(plain.kv_groups[0].kv_heads, 2);
  EXPECT_EQ(plain.kv_groups[0].k_size, 8);

  const engine::Engine tied =
      build(config(as("LlamaForCausalLM", R"(, "tie_word_embeddings": true)")));
  EXPECT_EQ(tied.manifest.parameters, 50 * 32 + 2 * layer + 32);

  // Layer 0 sees everything, layer 1 a window: two pools.
  const engine::Engine mixed =
      build(config(as("Qwen2ForCausalLM", R"(, "use_sliding_window": true, "sliding_window": 8,
                                              "max_window_layers": 1)")));
  ASSERT_EQ(mixed.kv_groups.size(), 2u);
  EXPECT_EQ(mixed.kv_groups[0].window, 0);
  EXPECT_EQ(mixed.kv_groups[1].window, 8);
}

// As MistralConfig and Qwen2Config of transformers: 4096 where the key is absent, none where it is
// null.
TEST(Build, WindowsHaveTheDefaultsOfTransformers) {
  const auto window = [](const char* name, const char* more) {
    return build(config(as(name, more))).kv_groups.at(0).window;
  };
  EXPECT_EQ(window("MistralForCausalLM", ""), 4096);
  EXPECT_EQ(window("MistralForCausalLM", R"(, "sliding_window": null)"), 0);
  const char* on = R"(, "use_sliding_window": true, "max_window_layers": 0)";
  EXPECT_EQ(window("Qwen2ForCausalLM", on), 4096);
  EXPECT_EQ(window("Qwen2ForCausalLM", ""), 0);
  EXPECT_EQ(window("LlamaForCausalLM", ""), 0);
}

TEST(Build, MergesAndFusesByDefault) {
  const std::string text = as("LlamaForCausalLM");
  const engine::Engine merged = build(config(text));
  BuildOptions options = small_options();
  options.disabled_passes = {"merge_qkv", "merge_gate_up"};
  const engine::Engine separate = build(config(text), options);
  // Two products of three and one of two less in each of two layers.
  const auto products = [](const engine::Engine& engine) {
    int count = 0;
    for (const ir::NodeId id : engine.graph.order())
      count += engine.graph.node(id).op == "matmul" ? 1 : 0;
    return count;
  };
  EXPECT_EQ(products(separate) - products(merged), 2 * (2 + 1));
  EXPECT_EQ(merged.manifest.parameters, separate.manifest.parameters);
}

TEST(Build, SucceedsUnderAMemoryCapThatDropsAll) {
  BuildOptions options = small_options();
  options.profile = true;
  options.max_build_memory = 1;
  BuildReport report;
  check(build(config(as("LlamaForCausalLM")), options, &report));
  EXPECT_EQ(report.tactics_timed, 0);
  const auto* matmul = ops::find_op("matmul");
  // Each tactic that the machine can run was dropped by name; the reference runs everywhere.
  const std::string reference = str("tactic ", matmul->tactics.back().name, " dropped for matmul");
  EXPECT_TRUE(std::any_of(report.notes.begin(), report.notes.end(), [&](const std::string& note) {
    return note.starts_with(reference) && note.find("the limit is") != std::string::npos;
  }));
}

TEST(Build, RemembersTimesInItsCache) {
  const TestFolder folder;
  BuildOptions options = small_options();
  options.profile = true;
  options.timing_cache = folder.path("timings.tsv");
  BuildReport first, second;
  const engine::Engine one = build(config(as("LlamaForCausalLM")), options, &first);
  const engine::Engine two = build(config(as("LlamaForCausalLM")), options, &second);
  EXPECT_GT(first.tactics_timed, 0);
  EXPECT_EQ(first.tactics_from_cache, 0);
  EXPECT_EQ(second.tactics_timed, 0);
  EXPECT_EQ(second.tactics_from_cache, first.tactics_timed);
  ASSERT_EQ(one.launches.size(), two.launches.size());
  for (size_t i = 0; i < one.launches.size(); ++i) {
    ASSERT_EQ(one.launches[i].choices.size(), two.launches[i].choices.size());
    for (size_t k = 0; k < one.launches[i].choices.size(); ++k)
      EXPECT_EQ(one.launches[i].choices[k].tactic, two.launches[i].choices[k].tactic);
  }
}

// With memory enough, no tactic of ours is dropped: none is wrong.
TEST(Build, DropsNoTacticOfAnyType) {
  for (const ComputeType type : {ComputeType::kFp32, ComputeType::kBf16, ComputeType::kFp16}) {
    BuildOptions options = small_options();
    options.profile = true;
    options.dtype = type;
    BuildReport report;
    check(build(config(as("LlamaForCausalLM")), options, &report));
    EXPECT_GT(report.tactics_timed, 0);
    EXPECT_EQ(join(report.notes, "\n"), "") << compute_type_name(type);
  }
}

TEST(Build, OneTacticForAllRowsWhenDeterministic) {
  BuildOptions options = small_options();
  options.deterministic = true;
  const engine::Engine engine = build(config(as("LlamaForCausalLM")), options);
  check(engine);
  for (const engine::PlannedLaunch& launch : engine.launches)
    EXPECT_EQ(launch.choices.size(), 1u);
}

void expect_refused(const std::string& text, const std::vector<std::string>& words) {
  SCOPED_TRACE(text);
  const std::string what = bad_input_of([&] { build(config(text)); });
  for (const std::string& word : words)
    EXPECT_NE(what.find(word), std::string::npos) << what;
}

TEST(Build, NamesTheNearestArchitecture) {
  expect_refused(as("LlamaForCausalLm"),
                 {"is LlamaForCausalLm", "nearest supported one is LlamaForCausalLM"});
  expect_refused(as("Qwen25ForCausalLM"), {"nearest supported one is Qwen2ForCausalLM"});
  expect_refused(as("GPT2LMHead"), {"nearest supported one is GPT2LMHeadModel"});
  expect_refused(R"({"architectures": []})", {"architectures"});
}

TEST(Build, RefusesSizesThatMakeNoSense) {
  expect_refused(as("LlamaForCausalLM", R"(, "num_key_value_heads": 3)"),
                 {"num_attention_heads", "not a multiple of num_key_value_heads 3"});
  for (const char* value : {"0", "-4", "1.5", "\"4\"", "1e30", "[4]"}) {
    for (const char* key :
         {"hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size",
          "vocab_size", "head_dim", "num_key_value_heads", "max_position_embeddings"}) {
      expect_refused(as("LlamaForCausalLM", str(", \"", key, "\": ", value)), {key});
    }
    for (const char* key : {"n_embd", "n_head", "n_layer", "n_positions", "vocab_size"})
      expect_refused(str(kGpt2, ", \"", key, "\": ", value, "}"), {key});
  }
  expect_refused(str(kGpt2, R"(, "n_head": 5})"), {"n_head"});
  expect_refused(as("LlamaForCausalLM", R"(, "hidden_act": "swoosh")"), {"hidden_act", "swoosh"});
}

TEST(Build, RefusesLayerTypesOfAnotherLength) {
  expect_refused(
      as("MistralForCausalLM", R"(, "sliding_window": 8, "layer_types": ["sliding_attention"])"),
      {"layer_types", "has 1 entries for 2 layers"});
}

TEST(Build, RefusesLimitsThatMakeNoSense) {
  const HfConfig from = config(as("LlamaForCausalLM"));
  const auto refused = [&](const BuildOptions& options, const char* word) {
    const std::string what = bad_input_of([&] { build(from, options); });
    EXPECT_NE(what.find(word), std::string::npos) << what;
  };
  BuildOptions options = small_options();
  options.max_seq_len = 65;
  refused(options, "exceeds the model's 64 positions");
  options = small_options();
  options.max_batch_size = 0;
  refused(options, "limits must be positive");
  options = small_options();
  options.max_batch_size = 1 << 28;
  refused(options, "is too large");
}

}  // namespace
}  // namespace millrace::compiler
