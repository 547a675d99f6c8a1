// gather_last_tokens: only the rows that get logits go through what follows the last attention.
//
//   %y = rms_norm(%x, %w)
//   %l = matmul(%y, %head)                              %g = gather_rows(%x, %rows)
//   %out = gather_rows(%l, %rows)            ->         %y = rms_norm(%g, %w)
//   return logits=%out                                  %out = matmul(%y, %head)
//
// A gather moves up through an op that treats rows one by one when every reader of that op's result
// gathers the same rows. It stops at the last attention, so of a prompt only the last token passes
// the head and the last feed-forward.
#include <algorithm>
#include <string_view>

#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/gather_rows/gather_rows.h"

namespace millrace::compiler {
namespace {

// Ops that make row t of each output from row t of their row inputs, and how many of their inputs
// have rows (0: all).
size_t num_row_inputs(std::string_view op, const ir::Node& node) {
  if (op == "add" || op == "mul" || op == "moe_matmul" || op == "moe_combine") return 2;
  if (op == "rms_norm" || op == "layer_norm" || op == "activation" || op == "gated_activation" ||
      op == "slice_cols" || op == "rescale" || op == "moe_route" || op == "clamped_swiglu") {
    return 1;
  }
  if (op == "matmul") {
    const ir::AttrValue* residual = node.attrs.find("residual");
    return residual != nullptr && std::get<bool>(*residual) ? 0 : 1;
  }
  return 0;
}

// The gather that all readers of `value` are, or kNone. Equal gathers become one.
ir::NodeId only_gather(ir::Graph& graph, ir::ValueId value) {
  const std::vector<ir::NodeId> users = graph.users(value);
  for (const ir::GraphOutput& output : graph.outputs()) {
    if (output.value == value) return ir::kNone;
  }
  for (const ir::NodeId user : users) {
    if (graph.node(user).op != ops::GatherRows::kName || graph.node(user).inputs[0] != value ||
        graph.node(user).inputs[1] != graph.node(users[0]).inputs[1]) {
      return ir::kNone;
    }
  }
  for (size_t i = 1; i < users.size(); ++i) {
    graph.replace_uses(graph.node(users[i]).outputs[0], graph.node(users[0]).outputs[0]);
    graph.erase(users[i]);
  }
  return users.empty() ? ir::kNone : users[0];
}

bool hoist(ir::Graph& graph, ir::NodeId id) {
  const ir::Node node = graph.node(id);
  const size_t row_inputs = num_row_inputs(node.op, node);
  if (row_inputs == 0) return false;
  std::vector<ir::NodeId> gathers;  // of each output
  for (const ir::ValueId out : node.outputs) {
    gathers.push_back(only_gather(graph, out));
    if (gathers.back() == ir::kNone) return false;
    if (graph.node(gathers.back()).inputs[1] != graph.node(gathers[0]).inputs[1]) return false;
  }
  // The first of them in execution order: nothing that reads a gather comes before it.
  const auto& order = graph.order();
  const ir::NodeId gather =
      *std::find_first_of(order.begin(), order.end(), gathers.begin(), gathers.end());
  const ir::ValueId rows = graph.node(gather).inputs[1];
  std::vector<ir::ValueId> inputs = node.inputs;
  for (size_t i = 0; i < row_inputs; ++i) {
    inputs[i] = add_before(graph, gather, ops::GatherRows{}, {inputs[i], rows})[0];
  }
  const ir::Graph::InsertBefore guard(graph, gather);
  graph.set_scope(node.scope);
  const ir::NodeId moved = ops::add_node(graph, node.op, std::move(inputs), node.attrs);
  for (size_t i = 0; i < gathers.size(); ++i) {
    graph.replace_uses(graph.node(gathers[i]).outputs[0], graph.node(moved).outputs[i]);
    graph.erase(gathers[i]);
  }
  graph.erase(id);
  return true;
}

}  // namespace

void gather_last_tokens(ir::Graph& graph) {
  // Backwards: when a node is looked at, its readers have been moved already if they can be.
  const std::vector<ir::NodeId> order = graph.order();
  for (auto it = order.rbegin(); it != order.rend(); ++it)
    hoist(graph, *it);
}

}  // namespace millrace::compiler
