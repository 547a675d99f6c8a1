#include "models/generation_inputs.h"

#include <algorithm>

#include "base/str.h"
#include "nn/attention_layer.h"

namespace millrace::models {
namespace {

nn::Value input(nn::Trace& trace, const std::string& name, ir::Shape shape) {
  return {&trace.graph, trace.graph.add_input(name, {ir::DType::kI32, std::move(shape)})};
}

nn::Value kv_cache(nn::Trace& trace, size_t layer, const KvLayer& shape, int64_t group) {
  ir::Attrs attrs;
  attrs.set("name", str("kv_cache.", layer));
  attrs.set("group", group);
  attrs.set("kv_heads", static_cast<int64_t>(shape.kv_heads));
  attrs.set("k_size", static_cast<int64_t>(shape.k_size));
  attrs.set("v_size", static_cast<int64_t>(shape.v_size));
  attrs.set("window", static_cast<int64_t>(shape.window));
  attrs.set("sink_tokens", static_cast<int64_t>(shape.sink_tokens));
  return {&trace.graph, trace.graph.add(std::string(ir::kInputOp), {}, {ir::DType::kState, {}},
                                        std::move(attrs))};
}

}  // namespace

nn::StepInputs prepare_basic_inputs(nn::Trace& trace, const std::vector<KvLayer>& layers,
                                    const InputLimits& limits) {
  std::vector<KvLayer> groups;
  std::vector<int64_t> group_of;
  for (const KvLayer& layer : layers) {
    const auto found = std::find(groups.begin(), groups.end(), layer);
    group_of.push_back(found - groups.begin());
    if (found == groups.end()) groups.push_back(layer);
  }
  trace.graph.add_symbol("T", limits.max_num_tokens);
  trace.graph.add_symbol("S", limits.max_sequences);
  trace.graph.add_symbol("L", std::max(limits.max_sequences, limits.max_num_tokens));
  trace.graph.add_symbol("R", limits.max_sequences);
  trace.graph.add_symbol("N", limits.max_seq_len);
  trace.graph.add_symbol("M", limits.max_seq_len);
  const int64_t num_groups = std::max<int64_t>(1, static_cast<int64_t>(groups.size()));

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
  step.sequence.push_back(input(trace, "kv_cache_block_offsets", {num_groups, "S", "M"}));
  if (limits.max_beam_width > 1) {
    step.max_beams = static_cast<int>(limits.max_beam_width);
    step.beams = {input(trace, "cache_indirection", {"R", "N"}),
                  input(trace, "sequence_slots", {"S"})};
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    step.kv_caches.push_back(kv_cache(trace, i, layers[i], group_of[i]));
  }
  step.input_ids = nn::merge_ids(ids, history);
  trace.token_ids = step.input_ids.id;
  trace.prompt_table_rows = limits.max_prompt_table_rows;
  return step;
}

}  // namespace millrace::models
