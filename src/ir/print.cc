// The text form of a graph.
//
//   graph llama {
//     dim T <= 8192
//     %0: i32[T] = input() {name="input_ids"}
//     %1: f32[4096, 384] = weight() {name="model.embed_tokens.weight"}
//     %2: f32[T, 384] = embedding(%0, %1) @model.embed_tokens
//     %3: f32[T, 384], %4: state[] = rope_append(%2, ...) {heads=6}
//     return logits=%2
//   }
#include <vector>

#include "base/check.h"
#include "ir/graph.h"

namespace millrace::ir {

std::string print(const Graph& graph) {
  std::vector<int> number(static_cast<size_t>(graph.num_values()), kNone);
  int next = 0;
  std::string out = str("graph ", graph.name(), " {\n");
  for (const Symbol& s : graph.symbols())
    out += str("  dim ", s.name, " <= ", s.max, "\n");
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    out += "  ";
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      number[static_cast<size_t>(node.outputs[i])] = next;
      out += str(i > 0 ? ", " : "", "%", next++, ": ", to_string(graph.type(node.outputs[i])));
    }
    out += str(" = ", node.op, "(");
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      out += str(i > 0 ? ", " : "", "%", number[static_cast<size_t>(node.inputs[i])]);
    }
    out += ")";
    for (size_t i = 0; i < node.attrs.entries().size(); ++i) {
      const auto& [name, value] = node.attrs.entries()[i];
      out += str(i == 0 ? " {" : ", ", name, "=", to_string(value));
    }
    if (!node.attrs.empty()) out += "}";
    if (!node.scope.empty()) out += str(" @", node.scope);
    out += "\n";
  }
  out += "  return";
  for (size_t i = 0; i < graph.outputs().size(); ++i) {
    const GraphOutput& o = graph.outputs()[i];
    out += str(i == 0 ? " " : ", ", o.name, "=%", number[static_cast<size_t>(o.value)]);
  }
  return out + "\n}\n";
}

}  // namespace millrace::ir
