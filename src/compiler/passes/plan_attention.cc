// plan_attention: attention of generated tokens gets a plan of who does what, which is made once a
// step for all layers of a kind. CUDA only.
//
//   %o = attention_generation(%q, <sequence inputs>, %c, %p) {window=w, ...}
//     ->
//   %w = attention_plan(%ids, %sequence_length, %query_start, %query_length, %host_request_types)
//        {window=w, ...}
//   %o = attention_generation(%q, <sequence inputs>, %c, %p, %w) {window=w, ..., planned=true}
//
// %ids is the step's first input with a row for each row of q: the plan wants their number.
#include <algorithm>
#include <utility>
#include <vector>

#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/attention_generation/attention_generation.h"
#include "ops/attention_generation/attention_generation_inputs.h"
#include "ops/attention_plan/attention_plan.h"
#include "ops/common/generation_division.h"

namespace millrace::compiler {
namespace {

using ops::GenerationInputs;

/// Whether the kernel that takes a plan may run it.
bool wants_plan(const ir::Graph& graph, const ir::Node& node, const ops::AttentionGeneration& a) {
  if (a.planned || a.beams > 0 || a.head_size != a.v_head_size) return false;
  if (a.alibi_bf16 || a.relative_buckets != 0) return false;
  if (!ops::generation::has_kernel(a.head_size)) return false;
  if (graph.type(node.inputs[0]).dtype == ir::DType::kF32) return false;
  const ir::Dim& sequences = graph.type(node.inputs[GenerationInputs::kSequence]).shape[0];
  return ir::Bindings(graph.symbols()).resolve(sequences) <= ops::generation::kMaxSequences;
}

/// An input of the step with so many rows, or kNone.
ir::ValueId input_with_rows(const ir::Graph& graph, const ir::Dim& rows) {
  for (const ir::NodeId id : graph.order()) {
    const ir::Node& node = graph.node(id);
    if (node.op != ir::kInputOp) continue;
    const ir::TensorType& type = graph.type(node.outputs[0]);
    if (!type.shape.empty() && type.shape[0] == rows) return node.outputs[0];
  }
  return ir::kNone;
}

struct Plan {
  ops::AttentionPlan attributes;
  std::vector<ir::ValueId> inputs;
  ir::ValueId value;
};

/// Of the same kind, made before; else a new one before `at`.
ir::ValueId find_plan(ir::Graph& graph, ir::NodeId at, const Plan& wanted,
                      std::vector<Plan>& plans) {
  const auto same = std::find_if(plans.begin(), plans.end(), [&](const Plan& plan) {
    return plan.attributes == wanted.attributes && plan.inputs == wanted.inputs;
  });
  if (same != plans.end()) return same->value;
  plans.push_back(wanted);
  plans.back().value = add_before(graph, at, wanted.attributes, wanted.inputs)[0];
  return plans.back().value;
}

}  // namespace

void plan_attention(ir::Graph& graph) {
  std::vector<Plan> plans;
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    if (graph.node(id).op != ops::AttentionGeneration::kName) continue;
    auto a = attrs_of<ops::AttentionGeneration>(graph, id);
    std::vector<ir::ValueId> inputs = graph.node(id).inputs;
    if (!wants_plan(graph, graph.node(id), a)) continue;
    const ir::ValueId rows = input_with_rows(graph, graph.type(inputs[0]).shape[0]);
    if (rows == ir::kNone) continue;
    const auto sequence = inputs.begin() + GenerationInputs::kSequence;
    const ops::AttentionPlan kind = {.heads = a.heads,
                                     .kv_heads = a.kv_heads,
                                     .head_size = a.head_size,
                                     .window = a.window,
                                     .sink_tokens = a.sink_tokens,
                                     .splits = a.splits};
    const ir::ValueId plan =
        find_plan(graph, id,
                  {kind,
                   {rows, sequence[ops::kSequenceLength], sequence[ops::kQueryStart],
                    sequence[ops::kQueryLength], sequence[ops::kHostRequestTypes]},
                   ir::kNone},
                  plans);
    a.planned = true;
    inputs.insert(inputs.begin() + ops::GenerationInputs(a).plan, plan);
    const std::vector<ir::ValueId> made = add_before(graph, id, a, std::move(inputs));
    for (size_t i = 0; i < made.size(); ++i)
      graph.replace_uses(graph.node(id).outputs[i], made[i]);
    graph.erase(id);
  }
}

}  // namespace millrace::compiler
