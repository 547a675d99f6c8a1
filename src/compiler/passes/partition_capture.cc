// partition_capture: cuts the generation regime's launches into runs that may be captured and runs
// that may not.
//
//   embedding rms_norm matmul rope_append | attention_context | attention_generation ...
//   \_________ captured once ___________/   \_ not launched _/  \___ captured once ___
//
// A launch may be captured when nothing about it changes from step to step but the contents of
// device memory. Ops of the context phase read lengths on the host; in the generation regime they
// are left out altogether, so they do not cut a run. An op for both phases that reads a `host_`
// input would.
#include <string_view>

#include "compiler/passes/plan_passes.h"
#include "ops/op.h"

namespace millrace::compiler {
namespace {

// rope_append and attention_generation take the host copies because all sequence inputs come
// together; they do not read them when they are captured (ops/common/sequence_inputs.h).
bool can_capture(const ir::Graph& graph, const ir::Node& node) {
  if (ops::find_op(node.op)->phase != ops::Phase::kBoth) return true;
  bool has_state = false, reads_host = false;
  for (const ir::ValueId in : node.inputs) {
    has_state = has_state || graph.type(in).dtype == ir::DType::kState;
    const ir::Node& leaf = graph.producer(in);
    if (leaf.op != ir::kInputOp) continue;
    const auto& name = std::get<std::string>(*leaf.attrs.find("name"));
    reads_host = reads_host || name.starts_with("host_");
  }
  return has_state || !reads_host;
}

}  // namespace

void partition_capture(engine::PlannedGraph& engine) {
  engine.captures.clear();
  for (int32_t i = 0; i < static_cast<int32_t>(engine.launches.size()); ++i) {
    const auto position = static_cast<size_t>(engine.launches[static_cast<size_t>(i)].node);
    const bool capturable =
        can_capture(engine.graph, engine.graph.node(engine.graph.order()[position]));
    if (!engine.captures.empty() && engine.captures.back().capturable == capturable) {
      engine.captures.back().end = i + 1;
    } else {
      engine.captures.push_back({i, i + 1, capturable});
    }
  }
}

}  // namespace millrace::compiler
