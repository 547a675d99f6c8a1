// merge_qkv: the products for Q, K and V of one attention become one over stacked weights.
//
//   %q = matmul(%x, %wq)                     %w = concat(%wq, %wk, %wv)
//   %k = matmul(%x, %wk)                     %qkv = matmul(%x, %w)
//   %v = matmul(%x, %wv)                     %q = slice_cols(%qkv) {end=..}   ...
//   attention(%q, %k, %v, ...)       ->      attention(%q, %k, %v, ...)
//
// One launch instead of three, and x is read once. The slices vanish in lower_attention, which
// reads Q, K and V side by side. Left alone when one of the products is read elsewhere too or types
// differ.
#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/attention/attention.h"

namespace millrace::compiler {

void merge_qkv(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    const ir::Node& node = graph.node(id);
    if (node.op != ops::Attention::kName) continue;
    std::vector<ir::NodeId> products;
    for (size_t i = 0; i < 3; ++i)
      products.push_back(graph.value(node.inputs[i]).producer);
    if (can_stack(graph, products)) stack_products(graph, products);
  }
}

}  // namespace millrace::compiler
