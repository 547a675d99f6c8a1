#include "compiler/passes/rewrite.h"

#include <algorithm>

#include "ops/concat/concat.h"
#include "ops/matmul/matmul.h"
#include "ops/slice_cols/slice_cols.h"

namespace millrace::compiler {

ir::ValueId add_concat(ir::Graph& graph, ir::NodeId at, std::vector<ir::ValueId> weights) {
  return add_before(graph, at, ops::Concat{}, std::move(weights))[0];
}

bool can_stack(const ir::Graph& graph, const std::vector<ir::NodeId>& products) {
  const ir::Node& first = graph.node(products[0]);
  for (const ir::NodeId id : products) {
    const ir::Node& node = graph.node(id);
    if (node.op != ops::Matmul::kName || node.attrs != first.attrs) return false;
    const auto attrs = attrs_of<ops::Matmul>(graph, id);
    if (attrs.residual || attrs.activation != "none") return false;
    if (node.inputs[0] != first.inputs[0] || graph.num_uses(node.outputs[0]) != 1) return false;
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      const ir::Node& weight = graph.producer(node.inputs[i]);
      if (weight.op != ir::kWeightOp || !is_stored_so(weight)) return false;
      if (graph.type(node.inputs[i]).dtype != graph.type(first.inputs[i]).dtype) return false;
    }
    if (std::count(products.begin(), products.end(), id) != 1) return false;
  }
  return true;
}

void stack_products(ir::Graph& graph, const std::vector<ir::NodeId>& products) {
  // The earliest of them: its users, and those of the others, all come later.
  const auto& order = graph.order();
  const ir::NodeId at = *std::find_if(order.begin(), order.end(), [&](ir::NodeId id) {
    return std::find(products.begin(), products.end(), id) != products.end();
  });
  // Weights have no inputs, so they may move up in front of the product that will read them.
  std::vector<ir::ValueId> inputs = {graph.node(at).inputs[0]};
  for (size_t i = 1; i < graph.node(at).inputs.size(); ++i) {
    std::vector<ir::ValueId> parts;
    for (const ir::NodeId id : products) {
      const ir::Node weight = graph.producer(graph.node(id).inputs[i]);
      const ir::Graph::InsertBefore guard(graph, at);
      ir::Node copy{weight.op, {}, {}, weight.attrs, weight.scope};
      parts.push_back(
          graph.node(graph.add(std::move(copy), {graph.type(weight.outputs[0])})).outputs[0]);
    }
    inputs.push_back(add_concat(graph, at, std::move(parts)));
  }
  const ir::ValueId stacked =
      add_before(graph, at, attrs_of<ops::Matmul>(graph, at), std::move(inputs))[0];
  int begin = 0;
  for (const ir::NodeId id : products) {
    const ir::ValueId old = graph.node(id).outputs[0];
    const int end = begin + static_cast<int>(graph.type(old).shape.back().value());
    const ops::SliceCols slice{.begin = begin, .end = end};
    graph.replace_uses(old, add_before(graph, at, slice, {stacked})[0]);
    begin = end;
  }
  for (const ir::NodeId id : products)
    graph.erase(id);
}

}  // namespace millrace::compiler
