#include "models/generation_inputs.h"

#include <algorithm>

#include "base/str.h"
#include "nn/attention_layer.h"

namespace millrace::models {
namespace {

nn::Value input(nn::Trace& trace, const std::string& name, ir::Shape shape) {
  return {&trace.graph, trace.graph.add_input(name, {ir::DType::kI32, std::move(shape)})};
}

/// `number`: of the layer among those with the same kind of cache.
nn::Value kv_cache(nn::Trace& trace, size_t number, const KvLayer& shape, int64_t group) {
  ir::Attrs attrs;
  attrs.set("name", str(shape.cross ? "cross_" : "", "kv_cache.", number));
  attrs.set("group", group);
  attrs.set("kv_heads", static_cast<int64_t>(shape.kv_heads));
  attrs.set("k_size", static_cast<int64_t>(shape.k_size));
  attrs.set("v_size", static_cast<int64_t>(shape.v_size));
  attrs.set("window", static_cast<int64_t>(shape.window));
  attrs.set("sink_tokens", static_cast<int64_t>(shape.sink_tokens));
  if (shape.cross) attrs.set("cross", true);
  return {&trace.graph, trace.graph.add(std::string(ir::kInputOp), {}, {ir::DType::kState, {}},
                                        std::move(attrs))};
}

/// Layers with equal caches form a group.
struct Groups {
  std::vector<int64_t> of_layer;
  int64_t count = 0;

  explicit Groups(const std::vector<KvLayer>& layers) {
    std::vector<KvLayer> groups;
    for (const KvLayer& layer : layers) {
      const auto found = std::find(groups.begin(), groups.end(), layer);
      of_layer.push_back(found - groups.begin());
      if (found == groups.end()) groups.push_back(layer);
    }
    count = std::max<int64_t>(1, static_cast<int64_t>(groups.size()));
  }
};

}  // namespace

nn::StepInputs prepare_basic_inputs(nn::Trace& trace, const std::vector<KvLayer>& layers,
                                    const InputLimits& limits) {
  const Groups groups(layers);
  trace.graph.add_symbol("T", limits.max_num_tokens);
  trace.graph.add_symbol("S", limits.max_sequences);
  trace.graph.add_symbol("L", std::max(limits.max_sequences, limits.max_num_tokens));
  trace.graph.add_symbol("R", limits.max_sequences);
  trace.graph.add_symbol("N", limits.max_seq_len);
  trace.graph.add_symbol("M", std::max(limits.max_seq_len, limits.max_encoder_len));
  nn::StepInputs step;
  const nn::Value ids = input(trace, "input_ids", {"T"});
  const nn::Value history = input(trace, "token_history", {"R", "N"});
  step.position_ids = input(trace, "position_ids", {"T"});
  step.last_token_ids = input(trace, "last_token_ids", {"L"});
  step.context_lengths = input(trace, "context_lengths", {"S"});
  for (const char* name : {"sequence_length", "query_start", "query_length", "host_request_types",
                           "host_past_key_value_lengths", "host_query_length"}) {
    step.sequence.push_back(input(trace, name, {"S"}));
  }
  step.sequence.push_back(input(trace, "kv_cache_block_offsets", {groups.count, "S", "M"}));
  size_t self = 0, cross = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    size_t& number = layers[i].cross ? cross : self;
    step.kv_caches.push_back(kv_cache(trace, number++, layers[i], groups.of_layer[i]));
  }
  if (cross > 0) step.encoder_lengths = input(trace, "encoder_input_lengths", {"S"});
  step.input_ids = nn::merge_ids(ids, history);
  return step;
}

nn::EncoderInputs prepare_encoder_inputs(nn::Trace& trace, const std::vector<KvLayer>& layers,
                                         const EncoderShape& shape, const InputLimits& limits) {
  const Groups groups(layers);
  trace.graph.add_symbol("T", limits.max_num_tokens);
  trace.graph.add_symbol("S", limits.max_sequences);
  trace.graph.add_symbol("M", std::max(limits.max_seq_len, limits.max_encoder_len));
  nn::EncoderInputs in;
  if (shape.features > 0) {
    trace.graph.add_symbol("F", 2 * limits.max_num_tokens);
    in.features = {&trace.graph, trace.graph.add_input("input_features",
                                                       {ir::DType::kF32, {"F", shape.features}})};
  } else {
    in.input_ids = input(trace, "input_ids", {"T"});
  }
  in.position_ids = input(trace, "position_ids", {"T"});
  in.query_start = input(trace, "query_start", {"S"});
  in.query_length = input(trace, "query_length", {"S"});
  in.block_offsets = input(trace, "kv_cache_block_offsets", {groups.count, "S", "M"});
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!layers[i].cross) continue;
    in.cross_caches.push_back(
        kv_cache(trace, in.cross_caches.size(), layers[i], groups.of_layer[i]));
  }
  return in;
}

}  // namespace millrace::models
