#include "engine/weight_order.h"

#include <map>

#include "base/str.h"

namespace millrace::engine {
namespace {

std::string text_of(const ir::Graph& graph, ir::NodeId id) {
  const ir::Node& node = graph.node(id);
  std::string text = ir::to_string(graph.type(node.outputs[0]));
  for (const auto& [name, value] : node.attrs.entries())
    text += str(" ", name, "=", ir::to_string(value));
  return text;
}

}  // namespace

WeightOrder weight_order(const Engine& engine) {
  WeightOrder order;
  std::map<std::string, size_t> known;
  for (const ir::NodeId id : engine.graph.order()) {
    if (engine.graph.node(id).op != ir::kWeightOp) continue;
    known.emplace(text_of(engine.graph, id), order.nodes.size());
    order.graph.push_back(order.nodes.size());
    order.nodes.emplace_back(&engine.graph, id);
  }
  if (!engine.encoder) return order;
  const ir::Graph& encoder = engine.encoder->graph;
  for (const ir::NodeId id : encoder.order()) {
    if (encoder.node(id).op != ir::kWeightOp) continue;
    const auto [it, is_new] = known.emplace(text_of(encoder, id), order.nodes.size());
    if (is_new) order.nodes.emplace_back(&encoder, id);
    order.encoder.push_back(it->second);
  }
  return order;
}

}  // namespace millrace::engine
