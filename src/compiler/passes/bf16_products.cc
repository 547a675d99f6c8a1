// bf16_products: products with bf16 weights may round x to bf16. For bf16 on a CPU only.
//
//   %y = matmul(%x, %w)   ->   %y = matmul(%x, %w) {bf16_products=true}
//
// Some processors multiply pairs of bf16 numbers at twice the speed of floats. Whether a tactic
// that does so is faster is measured like all tactics; it takes prompts only.
#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/matmul/matmul.h"

namespace millrace::compiler {

void bf16_products(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    if (graph.node(id).op != ops::Matmul::kName) continue;
    auto rounding = attrs_of<ops::Matmul>(graph, id);
    const std::vector<ir::ValueId> inputs = graph.node(id).inputs;
    if (rounding.bf16_products || graph.type(inputs[1]).dtype != ir::DType::kBF16) continue;
    rounding.bf16_products = true;
    graph.replace_uses(graph.node(id).outputs[0], add_before(graph, id, rounding, inputs)[0]);
    graph.erase(id);
  }
}

}  // namespace millrace::compiler
