#include "compiler/liveness.h"

#include <algorithm>

#include "ops/op.h"

namespace millrace::compiler {

std::vector<Live> live_ranges(const engine::PlannedGraph& engine) {
  const ir::Graph& graph = engine.graph;
  std::vector<Live> live(static_cast<size_t>(graph.num_values()));
  for (ir::ValueId v = 0; v < graph.num_values(); ++v)
    live[static_cast<size_t>(v)].root = v;
  const auto count = static_cast<int32_t>(engine.launches.size());
  const auto at = [&](ir::ValueId v) -> Live& { return live[static_cast<size_t>(v)]; };

  for (int32_t i = 0; i < count; ++i) {
    const auto position = static_cast<size_t>(engine.launches[static_cast<size_t>(i)].node);
    const ir::Node& node = graph.node(graph.order()[position]);
    const ops::Op* op = ops::find_op(node.op);
    for (const ir::ValueId in : node.inputs) {
      Live& root = at(at(in).root);
      const bool kept = i >= engine.head_begin && root.begin < engine.head_begin;
      root.end = std::max(root.end, kept ? count : i);
    }
    for (size_t k = 0; k < node.outputs.size(); ++k) {
      const ir::ValueId out = node.outputs[k];
      at(out).begin = at(out).end = i;
      at(out).needs_memory = graph.type(out).dtype != ir::DType::kState;
      if (k == 0 && op->alias_input >= 0) {
        const ir::ValueId source = node.inputs[static_cast<size_t>(op->alias_input)];
        at(out).root = at(source).root;
        at(at(out).root).end = std::max(at(at(out).root).end, i);
      }
    }
  }
  for (const ir::GraphOutput& output : graph.outputs())
    at(at(output.value).root).end = count;
  return live;
}

}  // namespace millrace::compiler
