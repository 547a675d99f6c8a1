// fuse_norm: an RMS norm that one product alone reads becomes a part of it. CUDA only.
//
//   %n = rms_norm(%x, %g) {eps=e}
//   %y = matmul(%n, %w)              ->     %y = matmul(%x, %w, %g) {norm="rms", norm_eps=e}
//
// The kernel for few rows norms x itself, without a launch between two products; for more rows the
// tactics of matmul launch the norm as before.
#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/matmul/matmul.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::compiler {

void fuse_norm(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    if (graph.node(id).op != ops::Matmul::kName) continue;
    auto fused = attrs_of<ops::Matmul>(graph, id);
    std::vector<ir::ValueId> inputs = graph.node(id).inputs;
    const ir::NodeId norm = made_by<ops::RmsNorm>(graph, inputs[0]);
    if (norm == ir::kNone || fused.normed() || graph.num_uses(inputs[0]) != 1) continue;
    const std::vector<ir::ValueId> normed = graph.node(norm).inputs;
    if (graph.type(normed[1]).shape.size() != 1) continue;
    const auto options = attrs_of<ops::RmsNorm>(graph, norm);
    fused.norm = "rms";
    fused.norm_eps = options.eps;
    fused.norm_offset = options.weight_offset;
    inputs[0] = normed[0];
    inputs.push_back(normed[1]);
    const ir::ValueId made = add_before(graph, id, fused, std::move(inputs))[0];
    graph.replace_uses(graph.node(id).outputs[0], made);
    graph.erase(id);
  }
  remove_dead(graph);
}

}  // namespace millrace::compiler
