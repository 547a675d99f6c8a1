// canonicalize: one form for graphs that mean the same, so that dumps, hashes and later passes do
// not depend on how a model happened to be written or in which order a compiler evaluated its
// arguments.
//
//   * nodes equal in op, inputs and attributes become one (tied embeddings are named twice)
//   * a slice of all columns is its input
//   * activation functions get one name each (swish -> silu, gelu_pytorch_tanh -> gelu_new)
//   * nodes are ordered depth first from the outputs, inputs before users
#include <map>
#include <tuple>

#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/activation/activation.h"
#include "ops/common/activation_kind.h"
#include "ops/slice_cols/slice_cols.h"

namespace millrace::compiler {
namespace {

const char* activation_name(ops::ActivationKind kind) {
  switch (kind) {
    case ops::ActivationKind::kNone:
      return "none";
    case ops::ActivationKind::kSilu:
      return "silu";
    case ops::ActivationKind::kGelu:
      return "gelu";
    case ops::ActivationKind::kGeluTanh:
      return "gelu_new";
    case ops::ActivationKind::kRelu:
      return "relu";
    case ops::ActivationKind::kRelu2:
      return "relu2";
    case ops::ActivationKind::kQuickGelu:
      return "quick_gelu";
  }
  return "none";
}

void name_activations(ir::Graph& graph) {
  for (const ir::NodeId id : graph.order()) {
    if (graph.node(id).op != ops::Activation::kName) continue;
    auto attrs = attrs_of<ops::Activation>(graph, id);
    attrs.kind = activation_name(*ops::parse_activation(attrs.kind));
    graph.node(id).attrs = ops::to_attrs(attrs);
  }
}

void drop_whole_slices(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    if (graph.node(id).op != ops::SliceCols::kName) continue;
    const ir::ValueId in = graph.node(id).inputs[0], out = graph.node(id).outputs[0];
    if (graph.type(in) != graph.type(out)) continue;
    graph.replace_uses(out, in);
    graph.erase(id);
  }
}

void merge_equal_nodes(ir::Graph& graph) {
  using Key = std::tuple<std::string, std::vector<ir::ValueId>, std::string>;
  std::map<Key, ir::NodeId> seen;
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    const ir::Node& node = graph.node(id);
    std::string attrs;
    for (const auto& [name, value] : node.attrs.entries()) {
      attrs += str(name, "=", ir::to_string(value), ";");
    }
    const auto [first, is_new] = seen.emplace(Key{node.op, node.inputs, attrs}, id);
    if (is_new) continue;
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      graph.replace_uses(node.outputs[i], graph.node(first->second).outputs[i]);
    }
    graph.erase(id);
  }
}

// Depth first without recursion: a model may be thousands of nodes deep.
void order_from_outputs(ir::Graph& graph) {
  std::vector<ir::NodeId> order;
  std::vector<char> placed(static_cast<size_t>(graph.num_nodes()), 0);
  std::vector<std::pair<ir::NodeId, size_t>> stack;
  for (const ir::GraphOutput& output : graph.outputs()) {
    stack.emplace_back(graph.value(output.value).producer, 0);
    while (!stack.empty()) {
      const auto [id, next] = stack.back();
      const auto& inputs = graph.node(id).inputs;
      if (placed[static_cast<size_t>(id)] != 0) {
        stack.pop_back();
      } else if (next < inputs.size()) {
        ++stack.back().second;
        stack.emplace_back(graph.value(inputs[next]).producer, 0);
      } else {
        placed[static_cast<size_t>(id)] = 1;
        order.push_back(id);
        stack.pop_back();
      }
    }
  }
  for (const ir::NodeId id : graph.order()) {  // what no output needs stays, at the end
    if (placed[static_cast<size_t>(id)] == 0) order.push_back(id);
  }
  graph.set_order(std::move(order));
}

}  // namespace

void canonicalize(ir::Graph& graph) {
  name_activations(graph);
  drop_whole_slices(graph);
  merge_equal_nodes(graph);
  order_from_outputs(graph);
}

}  // namespace millrace::compiler
