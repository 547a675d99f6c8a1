#include "nn/attention.h"

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
  const ir::NodeId node =
      ops::add_node(*q.graph, ops::Attention::kName, std::move(ids), ops::to_attrs(attributes));
  return {q.graph, q.graph->node(node).outputs[0]};
}

}  // namespace millrace::nn
