#include "nn/experts.h"

#include <vector>

#include "base/str.h"
#include "ops/clamped_swiglu/clamped_swiglu.h"
#include "ops/gated_activation/gated_activation.h"
#include "ops/matmul/matmul.h"
#include "ops/moe_combine/moe_combine.h"
#include "ops/moe_matmul/moe_matmul.h"
#include "ops/op.h"

namespace millrace::nn {
namespace {

template <typename A>
ir::NodeId add_op(const A& attrs, const std::vector<Value>& inputs) {
  std::vector<ir::ValueId> ids;
  for (const Value& in : inputs)
    ids.push_back(in.id);
  return ops::add_node(*inputs[0].graph, A::kName, std::move(ids), ops::to_attrs(attrs));
}

template <typename A>
Value add_value(const A& attrs, const std::vector<Value>& inputs) {
  ir::Graph& graph = *inputs[0].graph;
  return {&graph, graph.node(add_op(attrs, inputs)).outputs[0]};
}

/// The weights of layers below each expert's scope, expert after expert: [E * (N + ...), K].
Value stacked(const Scope& scope, int64_t experts, const std::vector<std::string_view>& layers,
              const std::vector<int64_t>& shape) {
  std::vector<std::string> leaves;
  for (int64_t e = 0; e < experts; ++e) {
    for (const std::string_view layer : layers)
      leaves.push_back(str(e, ".", layer, ".weight"));
  }
  return scope.stacked_weights(leaves, shape);
}

Value product(const Scope& scope, const Routing& routing, int64_t experts, Value x, Value weight,
              Value bias = {}) {
  ops::MoeMatmul attrs{.experts = static_cast<int>(experts), .bias = bias.graph != nullptr};
  attrs.dtype = ir::dtype_name(scope.trace().activation);
  std::vector<Value> inputs = {x, routing.ids, weight};
  if (attrs.bias) inputs.push_back(bias);
  return add_value(attrs, inputs);
}

Value combine(Value y, Value weights) {
  return add_value(ops::MoeCombine{}, {y, weights});
}

}  // namespace

Value router_logits(const Scope& scope, Value x, int64_t experts, bool bias) {
  scope.enter();
  const Value weight = scope.weight("weight", {experts, x.dim(-1)});
  if (!bias) return add_value(ops::Matmul{}, {x, weight});
  return add_value(ops::Matmul{.bias = true}, {x, weight, scope.weight("bias", {experts})});
}

Routing route(const ops::MoeRoute& attributes, Value logits, Value bias) {
  std::vector<Value> inputs = {logits};
  if (attributes.bias) inputs.push_back(bias);
  const ir::NodeId node = add_op(attributes, inputs);
  ir::Graph& graph = *logits.graph;
  return {{&graph, graph.node(node).outputs[0]}, {&graph, graph.node(node).outputs[1]}};
}

Value gated_experts(const Scope& scope, Value x, const Routing& routing,
                    const GatedExperts& experts) {
  scope.enter();
  const int64_t dim = x.dim(-1), count = experts.experts;
  const Value gate_up_weight =
      stacked(scope, count, {experts.gate, experts.up}, {experts.ffn, dim});
  const Value gate_up = product(scope, routing, count, x, gate_up_weight);  // [T, k, 2 ffn]
  const Value inner = add_value(ops::GatedActivation{.kind = experts.activation}, {gate_up});
  const Value down_weight = stacked(scope, count, {experts.down}, {dim, experts.ffn});
  return combine(product(scope, routing, count, inner, down_weight), routing.weights);
}

Value clamped_experts(const Scope& scope, Value x, const Routing& routing,
                      const ClampedExperts& experts) {
  scope.enter();
  const int64_t dim = x.dim(-1), count = experts.experts, ffn = experts.ffn;
  const Value gate_up = product(
      scope, routing, count, x, scope.transposed_weights("gate_up_proj", count, 2 * ffn, dim),
      scope.weight("gate_up_proj_bias", {count, 2 * ffn}));  // [T, k, 2 ffn]
  const Value inner =
      add_value(ops::ClampedSwiglu{.alpha = experts.alpha, .limit = experts.limit}, {gate_up});
  const Value out =
      product(scope, routing, count, inner, scope.transposed_weights("down_proj", count, dim, ffn),
              scope.weight("down_proj_bias", {count, dim}));
  return combine(out, routing.weights);
}

Value sigmoid_gate(Value y, Value logits) {
  const ops::MoeRoute sigmoid{.experts_per_token = 1, .scores = "sigmoid"};
  return combine(y, route(sigmoid, logits).weights);
}

}  // namespace millrace::nn
