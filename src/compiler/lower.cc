#include "compiler/lower.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/hash.h"
#include "base/version.h"
#include "ops/attention_generation/attention_generation.h"
#include "ops/attention_plan/attention_plan.h"

namespace millrace::compiler {
namespace {

// The head goes through at least this many rows at once, so that logits of whole prompts come in
// few pieces.
constexpr int64_t kHeadRows = 64;

// Puts nodes that follow from last_token_ids behind all others, so that they can run again on other
// rows.
void order_head_last(ir::Graph& graph) {
  std::vector<char> in_head(static_cast<size_t>(graph.num_values()), 0);
  const ir::ValueId rows = graph.find_input("last_token_ids");
  if (rows != ir::kNone) in_head[static_cast<size_t>(rows)] = 1;
  std::vector<ir::NodeId> body, head;
  for (const ir::NodeId id : graph.order()) {
    const ir::Node& node = graph.node(id);
    const bool follows = std::any_of(node.inputs.begin(), node.inputs.end(), [&](ir::ValueId v) {
      return in_head[static_cast<size_t>(v)] != 0;
    });
    for (const ir::ValueId out : node.outputs) {
      if (follows) in_head[static_cast<size_t>(out)] = 1;
    }
    (follows ? head : body).push_back(id);
  }
  body.insert(body.end(), head.begin(), head.end());
  graph.set_order(std::move(body));
}

void force_splits(ir::Graph& graph, int splits) {
  for (const ir::NodeId id : graph.order()) {
    const std::string& op = graph.node(id).op;
    if (op != ops::AttentionGeneration::kName && op != ops::AttentionPlan::kName) continue;
    graph.node(id).attrs.set("splits", static_cast<int64_t>(splits));
  }
}

int32_t head_begin(const ir::Graph& graph) {
  const ir::ValueId rows = graph.find_input("last_token_ids");
  int32_t launches = 0;
  for (const ir::NodeId id : graph.order()) {
    const ir::Node& node = graph.node(id);
    if (node.op == ir::kInputOp || node.op == ir::kWeightOp) continue;
    if (std::count(node.inputs.begin(), node.inputs.end(), rows) > 0) return launches;
    ++launches;
  }
  return launches;
}

std::vector<engine::KvGroup> kv_groups(const ir::Graph& graph) {
  // By layer number: the graph's order is that of use, which passes may change.
  std::map<std::pair<bool, int64_t>, const ir::Node*> layers;
  for (const ir::NodeId id : graph.order()) {
    const ir::Node& node = graph.node(id);
    if (node.op != ir::kInputOp || graph.type(node.outputs[0]).dtype != ir::DType::kState) continue;
    const auto& name = std::get<std::string>(*node.attrs.find("name"));
    const bool cross = node.attrs.find("cross") != nullptr;
    layers[{cross, std::stoll(name.substr(name.rfind('.') + 1))}] = &node;
  }
  std::vector<engine::KvGroup> groups;
  for (const auto& [layer, node] : layers) {
    const auto number = [&, n = node](const char* attr) {
      return static_cast<int>(std::get<int64_t>(*n->attrs.find(attr)));
    };
    const auto group = static_cast<size_t>(number("group"));
    if (groups.size() <= group) groups.resize(group + 1);
    groups[group].kv_heads = number("kv_heads");
    groups[group].k_size = number("k_size");
    groups[group].v_size = number("v_size");
    groups[group].window = number("window");
    groups[group].sink_tokens = number("sink_tokens");
    groups[group].cross = layer.first;
    groups[group].layers.push_back(std::get<std::string>(*node->attrs.find("name")));
  }
  return groups;
}

// The largest steps of the two regimes. A generation step has one row a sequence.
std::vector<engine::RegimePlan> regimes(const ResolvedLimits& limits) {
  const int64_t sequences = limits.max_sequences;
  const auto plan = [&](const char* name, int64_t rows, int64_t logit_rows) {
    engine::RegimePlan regime;
    regime.name = name;
    regime.maxima = {{"T", rows},
                     {"S", sequences},
                     {"L", logit_rows},
                     {"R", sequences},
                     {"N", limits.max_seq_len},
                     {"M", std::max(limits.max_seq_len, limits.max_encoder_len)}};
    if (limits.encoder_features > 0) regime.maxima.push_back({"F", 2 * rows});
    return regime;
  };
  return {plan("context", limits.max_num_tokens, std::max(kHeadRows, sequences)),
          plan("generation", sequences, sequences)};
}

void take_graph(ir::Graph graph, engine::PlannedGraph* planned) {
  order_head_last(graph);
  // Values get the numbers that the text form gives them: plan and file then speak of the same
  // ones.
  planned->graph = ir::parse(print(graph), "lowered graph");
  planned->head_begin = head_begin(planned->graph);
}

// `model.safetensors 28342688 1f0c...`, one a file.
std::string source_text(const Checkpoint* checkpoint) {
  if (checkpoint == nullptr) return "generated weights";
  std::vector<std::string> files;
  for (const CheckpointFile& file : checkpoint->files()) {
    files.push_back(str(file.path.substr(file.path.rfind('/') + 1), " ", file.size, " ",
                        to_hex(file.header_hash)));
  }
  return join(files, ", ");
}

}  // namespace

engine::Engine lower(TracedModel traced, const BuildOptions& options) {
  if (options.multi_block > 0) force_splits(traced.graph, options.multi_block);
  engine::Engine engine;
  take_graph(std::move(traced.graph), &engine);
  engine.kv_groups = kv_groups(engine.graph);
  engine.regimes = regimes(traced.limits);
  if (traced.encoder) {
    take_graph(std::move(*traced.encoder), &engine.encoder.emplace());
    engine.encoder->regimes = {engine.regimes[0]};
  }
  engine.dummy_weights = options.dummy_seed.has_value();
  engine.dummy_seed = options.dummy_seed.value_or(0);
  engine::Manifest& m = engine.manifest;
  m.dtype = compute_type_name(traced.limits.compute);
  m.kv_dtype = ir::dtype_name(traced.limits.kv_dtype);
  m.vocab_size = traced.limits.vocab_size;
  m.max_positions = traced.limits.max_positions;
  m.max_batch_size = options.max_batch_size;
  m.max_beam_width = options.max_beam_width;
  m.max_seq_len = traced.limits.max_seq_len;
  m.max_num_tokens = traced.limits.max_num_tokens;
  m.untimed = !options.profile;
  m.kind = traced.limits.kind;
  m.max_encoder_len = traced.limits.max_encoder_len;
  m.encoder_features = traced.limits.encoder_features;
  return engine;
}

void describe_build(const BuildInput& input, const BuildOptions& options,
                    const device::Properties& device, engine::Manifest* manifest) {
  manifest->model = input.model;
  manifest->architecture = input.config.architecture();
  manifest->version = version();
  manifest->commit = commit();
  manifest->device = device.kind == device::Kind::kCpu ? "cpu" : "cuda";
  manifest->device_name = device.name;
  manifest->isa =
      device.kind == device::Kind::kCpu ? device::isa_name(device.isa) : str("sm_", device.sm);
  manifest->options = options.canonical_text();
  manifest->source = source_text(input.checkpoint);
}

}  // namespace millrace::compiler
