#include "runtime/bind_frame.h"

#include "base/error.h"

namespace millrace::runtime {

void bind_frame(const LoadedEngine& loaded, const engine::PlannedGraph& planned,
                std::span<const size_t> weights, KvPool& kv, InputAddress input, Frame& frame) {
  const ir::Graph& graph = planned.graph;
  size_t next_weight = 0;
  for (const ir::NodeId id : graph.order()) {
    const ir::Node& node = graph.node(id);
    void*& address = frame.values[static_cast<size_t>(node.outputs[0])];
    if (node.op == ir::kWeightOp) {
      address = const_cast<void*>(loaded.weights->data(weights[next_weight++]));
      continue;
    }
    if (node.op == ir::kInputOp) {
      const auto& name = std::get<std::string>(*node.attrs.find("name"));
      const bool is_state = graph.type(node.outputs[0]).dtype == ir::DType::kState;
      address = is_state ? kv.view(name) : input(name);
      if (address == nullptr) {
        throw_bad_input(str("the engine wants an input ", name, " that steps do not have"),
                        loaded.engine().manifest.model, "build the engine again");
      }
      continue;
    }
    // A state is passed on: what an op returns is what it was given.
    for (const ir::ValueId out : node.outputs) {
      if (graph.type(out).dtype != ir::DType::kState) continue;
      for (const ir::ValueId in : node.inputs) {
        if (graph.type(in).dtype != ir::DType::kState) continue;
        frame.values[static_cast<size_t>(out)] = frame.values[static_cast<size_t>(in)];
      }
    }
  }
}

}  // namespace millrace::runtime
