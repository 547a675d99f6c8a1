#include "nn/attention_layer.h"

#include "ops/common/sequence_inputs.h"
#include "ops/logn_factors/logn_factors.h"
#include "ops/merge_ids/merge_ids.h"
#include "ops/moe_combine/moe_combine.h"
#include "ops/op.h"

namespace millrace::nn {

Value attention(const ops::Attention& attributes, Value q, Value k, Value v,
                const AttentionInputs& inputs) {
  std::vector<ir::ValueId> ids = {q.id, k.id, v.id};
  for (const Value& value : inputs.step.sequence)
    ids.push_back(value.id);
  ids.push_back(inputs.step.kv_caches.at(static_cast<size_t>(inputs.layer)).id);
  if (attributes.rotary_dim > 0) ids.push_back(inputs.angles.id);
  if (attributes.qk_norm) {
    ids.push_back(inputs.q_norm.id);
    ids.push_back(inputs.k_norm.id);
  }
  if (attributes.sink_logits) ids.push_back(inputs.sink_logits.id);
  if (attributes.relative_buckets > 0) ids.push_back(inputs.relative_bias.id);
  for (const Value& value : inputs.step.beams)
    ids.push_back(value.id);
  ops::Attention complete = attributes;
  complete.beams = inputs.step.max_beams;
  const ir::NodeId node =
      ops::add_node(*q.graph, ops::Attention::kName, std::move(ids), ops::to_attrs(complete));
  return {q.graph, q.graph->node(node).outputs[0]};
}

Value rope_angles(Trace& trace, const StepInputs& step, const ops::RopeAngles& options) {
  const ir::NodeId node =
      ops::add_node(trace.graph, ops::RopeAngles::kName,
                    {step.position_ids.id, step.context_lengths.id,
                     step.sequence[ops::kQueryStart].id, step.sequence[ops::kQueryLength].id},
                    ops::to_attrs(options));
  return {&trace.graph, trace.graph.node(node).outputs[0]};
}

Value scale_by_logn(Value queries, const StepInputs& step, int64_t length) {
  ir::Graph& graph = *queries.graph;
  const ops::LognFactors attributes{.length = static_cast<int>(length)};
  const ir::NodeId factors = ops::add_node(graph, ops::LognFactors::kName, {step.position_ids.id},
                                           ops::to_attrs(attributes));  // [T, 1]
  // A sum of one term.
  const ir::NodeId scaled =
      ops::add_node(graph, ops::MoeCombine::kName, {queries.id, graph.node(factors).outputs[0]},
                    ops::to_attrs(ops::MoeCombine{}));
  return {&graph, graph.node(scaled).outputs[0]};
}

Value merge_ids(Value ids, Value history) {
  const ir::NodeId node = ops::add_node(*ids.graph, ops::MergeIds::kName, {ids.id, history.id}, {});
  return {ids.graph, ids.graph->node(node).outputs[0]};
}

}  // namespace millrace::nn
