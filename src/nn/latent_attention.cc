#include "nn/latent_attention.h"

#include "ops/mla_append/mla_append.h"
#include "ops/op.h"

namespace millrace::nn {

Value latent_attention(const Scope& scope, const ops::MlaAttention& attributes, Value q, Value kv,
                       const AttentionInputs& in, bool interleaved, double norm_eps) {
  scope.enter();
  ir::Graph& graph = *q.graph;
  std::vector<ir::ValueId> sequence;
  for (const Value& value : in.step.sequence)
    sequence.push_back(value.id);
  ops::MlaAttention a = attributes;
  a.beams = in.step.max_beams;
  const ops::MlaAppend append{.heads = a.heads,
                              .nope_size = a.nope_size,
                              .rope_size = a.rope_size,
                              .latent_size = a.latent_size,
                              .interleaved = interleaved,
                              .norm_eps = norm_eps};
  std::vector<ir::ValueId> inputs = {q.id, kv.id};
  inputs.insert(inputs.end(), sequence.begin(), sequence.end());
  inputs.push_back(in.step.kv_caches.at(static_cast<size_t>(in.layer)).id);
  inputs.push_back(in.angles.id);
  inputs.push_back(scope["kv_a_layernorm"].weight("weight", {a.latent_size}).id);
  const ir::NodeId appended =
      ops::add_node(graph, ops::MlaAppend::kName, std::move(inputs), ops::to_attrs(append));

  const int64_t rows = int64_t{a.heads} * (a.nope_size + a.v_size);
  inputs = {graph.node(appended).outputs[0]};
  inputs.insert(inputs.end(), sequence.begin(), sequence.end());
  inputs.push_back(graph.node(appended).outputs[1]);
  inputs.push_back(scope["kv_b_proj"].weight("weight", {rows, a.latent_size}).id);
  for (const Value& value : in.step.beams)
    inputs.push_back(value.id);
  const ir::NodeId attended =
      ops::add_node(graph, ops::MlaAttention::kName, std::move(inputs), ops::to_attrs(a));
  return {&graph, graph.node(attended).outputs[0]};
}

}  // namespace millrace::nn
