// What passes share: looking at a node, and replacing it by others.
#pragma once

#include <vector>

#include "ir/graph.h"
#include "ops/attributes.h"
#include "ops/op.h"

namespace millrace::compiler {

/// The node that makes `value` when it is a `Attributes` op, else kNone.
template <typename Attributes>
ir::NodeId made_by(const ir::Graph& graph, ir::ValueId value) {
  const ir::NodeId producer = graph.value(value).producer;
  return graph.node(producer).op == Attributes::kName ? producer : ir::kNone;
}

template <typename Attributes>
Attributes attrs_of(const ir::Graph& graph, ir::NodeId node) {
  return ops::from_attrs<Attributes>(graph.node(node).attrs);
}

/// Whether a weight is what its tensors hold, row by row: neither transposed nor divided.
inline bool is_stored_so(const ir::Node& weight) {
  return weight.attrs.find("transposed") == nullptr && weight.attrs.find("unit_rows") == nullptr;
}

/// Adds an op before `at`, in its scope; returns its outputs.
template <typename Attributes>
std::vector<ir::ValueId> add_before(ir::Graph& graph, ir::NodeId at, const Attributes& attributes,
                                    std::vector<ir::ValueId> inputs) {
  const ir::Graph::InsertBefore guard(graph, at);
  graph.set_scope(graph.node(at).scope);
  const ir::NodeId made =
      ops::add_node(graph, Attributes::kName, std::move(inputs), ops::to_attrs(attributes));
  return graph.node(made).outputs;
}

/// The stacked weights [sum N_i, K] or [sum N_i], before `at`.
ir::ValueId add_concat(ir::Graph& graph, ir::NodeId at, std::vector<ir::ValueId> weights);

/// Linear layers on one input can become one product over stacked weights. True when each of
/// `products` is a matmul of the same x, is read once, has no epilogue but perhaps a bias, and
/// agrees with the others in that and in types.
bool can_stack(const ir::Graph& graph, const std::vector<ir::NodeId>& products);
/// REQUIRES: can_stack. Adds the stacked product and the slices that stand for the old results, in
/// order.
void stack_products(ir::Graph& graph, const std::vector<ir::NodeId>& products);

}  // namespace millrace::compiler
