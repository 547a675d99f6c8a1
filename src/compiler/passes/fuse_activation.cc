// fuse_activation: activation functions join the op beside them.
//
//   %g = slice_cols(%gu) {end=F}
//   %u = slice_cols(%gu) {begin=F, end=2F}
//   %a = activation(%g) {kind="silu"}
//   %h = mul(%a, %u)                         ->   %h = gated_activation(%gu) {kind="silu"}
//
//   %y = matmul(%x, %w)
//   %h = activation(%y) {kind="gelu_new"}    ->   %h = matmul(%x, %w) {activation="gelu_new"}
//
// Saves writing and reading the intermediate values. A value that is read elsewhere too stays.
#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/activation/activation.h"
#include "ops/gated_activation/gated_activation.h"
#include "ops/matmul/matmul.h"
#include "ops/mul/mul.h"
#include "ops/slice_cols/slice_cols.h"

namespace millrace::compiler {
namespace {

void replace(ir::Graph& graph, ir::NodeId id, ir::ValueId by) {
  graph.replace_uses(graph.node(id).outputs[0], by);
  graph.erase(id);
}

bool fuse_gated(ir::Graph& graph, ir::NodeId id) {
  const ir::Node& mul = graph.node(id);
  const ir::NodeId activation = made_by<ops::Activation>(graph, mul.inputs[0]);
  const ir::NodeId up = made_by<ops::SliceCols>(graph, mul.inputs[1]);
  if (activation == ir::kNone || up == ir::kNone) return false;
  const ir::NodeId gate = made_by<ops::SliceCols>(graph, graph.node(activation).inputs[0]);
  if (gate == ir::kNone) return false;
  const ir::ValueId merged = graph.node(up).inputs[0];
  const auto g = attrs_of<ops::SliceCols>(graph, gate), u = attrs_of<ops::SliceCols>(graph, up);
  const int64_t width = graph.type(merged).shape.back().value();
  if (graph.node(gate).inputs[0] != merged || g.begin != 0 || g.end != u.begin || u.end != width ||
      width != int64_t{2} * g.end) {
    return false;
  }
  const ops::GatedActivation fused{.kind = attrs_of<ops::Activation>(graph, activation).kind};
  replace(graph, id, add_before(graph, id, fused, {merged})[0]);
  return true;
}

bool fuse_into_product(ir::Graph& graph, ir::NodeId id) {
  const ir::ValueId in = graph.node(id).inputs[0];
  const ir::NodeId product = made_by<ops::Matmul>(graph, in);
  if (product == ir::kNone || graph.num_uses(in) != 1) return false;
  auto fused = attrs_of<ops::Matmul>(graph, product);
  if (fused.activation != "none" || fused.residual) return false;
  fused.activation = attrs_of<ops::Activation>(graph, id).kind;
  replace(graph, id, add_before(graph, id, fused, graph.node(product).inputs)[0]);
  return true;
}

}  // namespace

void fuse_activation(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    if (graph.node(id).op == ops::Mul::kName) fuse_gated(graph, id);
  }
  remove_dead(graph);  // the slices and activations of fused pairs
  const std::vector<ir::NodeId> rest = graph.order();
  for (const ir::NodeId id : rest) {
    if (graph.node(id).op == ops::Activation::kName) fuse_into_product(graph, id);
  }
  remove_dead(graph);
}

}  // namespace millrace::compiler
