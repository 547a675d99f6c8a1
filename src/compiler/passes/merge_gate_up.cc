// merge_gate_up: the two products that feed a gated feed-forward become one over stacked weights.
//
//   %g = matmul(%x, %wg)                     %w = concat(%wg, %wu)
//   %u = matmul(%x, %wu)                     %gu = matmul(%x, %w)
//   %a = activation(%g)                      %g = slice_cols(%gu) {end=F}
//   %h = mul(%a, %u)                  ->     %u = slice_cols(%gu) {begin=F, end=2F}   ...
//
// fuse_activation then turns activation and mul into gated_activation on the merged product.
#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/activation/activation.h"
#include "ops/mul/mul.h"

namespace millrace::compiler {

void merge_gate_up(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    const ir::Node& node = graph.node(id);
    if (node.op != ops::Mul::kName) continue;
    const ir::NodeId activation = made_by<ops::Activation>(graph, node.inputs[0]);
    if (activation == ir::kNone || graph.num_uses(node.inputs[0]) != 1) continue;
    const ir::NodeId gate = graph.value(graph.node(activation).inputs[0]).producer;
    const ir::NodeId up = graph.value(node.inputs[1]).producer;
    if (can_stack(graph, {gate, up})) stack_products(graph, {gate, up});
  }
}

}  // namespace millrace::compiler
