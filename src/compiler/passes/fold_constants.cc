// fold_constants: a concat of weights becomes one weight that is stacked while loading.
//
//   %0: bf16[4, 8] = weight() {name="q"}
//   %1: bf16[2, 8] = weight() {name="k"}      %0: bf16[6, 8] = weight() {name="q|k", rows=[4, 2]}
//   %2: bf16[6, 8] = concat(%0, %1)           ->
//
// Weights of different types or orientations stay apart. Other constants do not occur: models hold
// no tables of their own, ops compute what they need (rope_angles).
#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/concat/concat.h"

namespace millrace::compiler {
namespace {

bool foldable(const ir::Graph& graph, const ir::Node& concat) {
  const ir::Node& first = graph.producer(concat.inputs[0]);
  for (const ir::ValueId in : concat.inputs) {
    const ir::Node& weight = graph.producer(in);
    if (weight.op != ir::kWeightOp || !is_stored_so(weight)) return false;
    if (graph.type(in).dtype != graph.type(first.outputs[0]).dtype) return false;
  }
  return true;
}

}  // namespace

void fold_constants(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    if (graph.node(id).op != ops::Concat::kName || !foldable(graph, graph.node(id))) continue;
    const ir::Node concat = graph.node(id);
    std::vector<std::string> names;
    std::vector<double> rows;
    for (const ir::ValueId in : concat.inputs) {
      names.push_back(std::get<std::string>(*graph.producer(in).attrs.find("name")));
      rows.push_back(static_cast<double>(graph.type(in).shape[0].value()));
    }
    ir::Node weight{std::string(ir::kWeightOp), {}, {}, {}, concat.scope};
    weight.attrs.set("name", join(names, "|"));
    weight.attrs.set("rows", std::move(rows));
    const ir::Graph::InsertBefore guard(graph, id);
    const ir::NodeId made = graph.add(std::move(weight), {graph.type(concat.outputs[0])});
    graph.replace_uses(concat.outputs[0], graph.node(made).outputs[0]);
    graph.erase(id);
  }
}

}  // namespace millrace::compiler
