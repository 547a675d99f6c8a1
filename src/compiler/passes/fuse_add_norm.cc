// fuse_add_norm: the residual sum and the norm that follows it become one op.
//
//   %s = add(%x, %r)
//   %n = rms_norm(%s, %w) {eps=e}       ->      %s, %n = add_rms_norm(%x, %r, %w) {eps=e}
//
// (and layer_norm likewise, but for one over groups). The sum is written once and not read back.
// Other readers of %s stay.
#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/add/add.h"
#include "ops/add_layer_norm/add_layer_norm.h"
#include "ops/add_rms_norm/add_rms_norm.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::compiler {
namespace {

// Norm reads (sum, weights...); Fused reads (x, residual, weights...) and gives (sum, normed).
template <typename Norm, typename Fused>
void fuse(ir::Graph& graph, ir::NodeId norm) {
  const ir::NodeId add = made_by<ops::Add>(graph, graph.node(norm).inputs[0]);
  const ops::NormOptions options = attrs_of<Norm>(graph, norm).options();
  if (add == ir::kNone || options.groups > 1) return;
  std::vector<ir::ValueId> inputs = graph.node(add).inputs;
  const std::vector<ir::ValueId> norm_inputs = graph.node(norm).inputs;
  inputs.insert(inputs.end(), norm_inputs.begin() + 1, norm_inputs.end());
  // Readers of the sum may stand between the two, so the fused op goes where the add was, and the
  // norm's weights, which have no inputs, move up in front of it.
  for (size_t i = 2; i < inputs.size(); ++i) {
    const ir::Node weight = graph.producer(inputs[i]);
    if (weight.op != ir::kWeightOp) return;
    const ir::Graph::InsertBefore guard(graph, add);
    ir::Node copy{weight.op, {}, {}, weight.attrs, weight.scope};
    inputs[i] = graph.node(graph.add(std::move(copy), {graph.type(inputs[i])})).outputs[0];
  }
  const Fused fused{.eps = options.eps, .weight_offset = options.weight_offset};
  const std::vector<ir::ValueId> made = add_before(graph, add, fused, std::move(inputs));
  graph.replace_uses(graph.node(norm).outputs[0], made[1]);
  graph.erase(norm);
  graph.replace_uses(graph.node(add).outputs[0], made[0]);
  graph.erase(add);
}

}  // namespace

void fuse_add_norm(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    if (graph.node(id).op == ops::RmsNorm::kName) fuse<ops::RmsNorm, ops::AddRmsNorm>(graph, id);
    if (graph.node(id).op == ops::LayerNorm::kName) {
      fuse<ops::LayerNorm, ops::AddLayerNorm>(graph, id);
    }
  }
  remove_dead(graph);
}

}  // namespace millrace::compiler
