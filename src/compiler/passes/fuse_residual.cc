// fuse_residual: the residual sum in front of an RMS norm becomes a part of the product before it.
// CUDA only.
//
//   %y = matmul(%x, %w)
//   %s = add(%y, %r)                     %s = matmul(%x, %w, %r) {residual=true}
//   %n = rms_norm(%s, %g)         ->     %n = rms_norm(%s, %g)
//
// The sum then costs no pass over memory of its own, and fuse_norm can make the norm a part of the
// product behind it. Other readers of %s stay. The product is not rounded before the sum.
#include <algorithm>

#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/add/add.h"
#include "ops/matmul/matmul.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::compiler {
namespace {

bool feeds_rms_norm(const ir::Graph& graph, ir::ValueId value) {
  const std::vector<ir::NodeId> users = graph.users(value);
  return std::ranges::any_of(
      users, [&](ir::NodeId user) { return graph.node(user).op == ops::RmsNorm::kName; });
}

// The sum is `product` + `residual`.
bool fuse(ir::Graph& graph, ir::NodeId sum, ir::ValueId product, ir::ValueId residual) {
  const ir::NodeId id = made_by<ops::Matmul>(graph, product);
  if (id == ir::kNone || graph.num_uses(product) != 1) return false;
  auto fused = attrs_of<ops::Matmul>(graph, id);
  if (fused.residual || fused.gated || fused.normed()) return false;
  std::vector<ir::ValueId> inputs = graph.node(id).inputs;
  if (graph.type(residual).dtype != graph.type(inputs[0]).dtype) return false;
  fused.residual = true;
  inputs.push_back(residual);
  const ir::ValueId made = add_before(graph, sum, fused, std::move(inputs))[0];
  graph.replace_uses(graph.node(sum).outputs[0], made);
  graph.erase(sum);
  return true;
}

}  // namespace

void fuse_residual(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    if (graph.node(id).op != ops::Add::kName) continue;
    if (!feeds_rms_norm(graph, graph.node(id).outputs[0])) continue;
    const std::vector<ir::ValueId> terms = graph.node(id).inputs;
    if (terms[0] == terms[1]) continue;
    if (!fuse(graph, id, terms[0], terms[1])) fuse(graph, id, terms[1], terms[0]);
  }
  remove_dead(graph);
}

}  // namespace millrace::compiler
