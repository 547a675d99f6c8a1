// fuse_rope: attention of generated tokens rotates their queries and keys itself, and appends their
// keys and values to the cache; rope_append keeps the rows of prompts. CUDA only.
//
//   %r, %c1 = rope_append(%qkv, <sequence inputs>, %c0, %angles) {packed=true, ...}
//   %p = attention_context(%r, <sequence inputs>, %c1)
//   %o = attention_generation(%r, <sequence inputs>, %c1, %p)
//     ->
//   %r, %c1 = rope_append(%qkv, <sequence inputs>, %c0, %angles) {phase="context", ...}
//   %p = attention_context(%r, <sequence inputs>, %c1)
//   %o, %c2 = attention_generation(%qkv, <sequence inputs>, %c1, %p, %angles) {append=true, ...}
//
// A step of generated tokens is then one launch shorter in each layer, and nothing that attention
// reads of the cache depends on the kernel before it. Norms of heads stay rope_append's; beams move
// what was written before, so there the order of writing and reading stays as it is.
#include <utility>
#include <vector>

#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/attention_context/attention_context.h"
#include "ops/attention_generation/attention_generation.h"
#include "ops/attention_generation/attention_generation_inputs.h"
#include "ops/rope_append/rope_append.h"

namespace millrace::compiler {
namespace {

using ops::GenerationInputs;

/// Whether rope_append's results are read by this attention of generated tokens and the attention
/// of prompts that it adds to, and by nothing else.
bool is_alone(const ir::Graph& graph, ir::NodeId append, ir::NodeId attention) {
  const ir::Node& node = graph.node(attention);
  const ir::NodeId context =
      made_by<ops::AttentionContext>(graph, node.inputs[GenerationInputs::kOut]);
  const std::vector<ir::ValueId>& made = graph.node(append).outputs;
  return context != ir::kNone && graph.num_uses(made[0]) == 2 && graph.num_uses(made[1]) == 2 &&
         graph.node(context).inputs[GenerationInputs::kQ] == made[0] &&
         graph.node(context).inputs[GenerationInputs::kCache] == made[1] &&
         node.inputs[GenerationInputs::kCache] == made[1];
}

void fuse(ir::Graph& graph, ir::NodeId append, ir::NodeId attention) {
  auto rope = attrs_of<ops::RopeAppend>(graph, append);
  auto a = attrs_of<ops::AttentionGeneration>(graph, attention);
  const std::vector<ir::ValueId> projected = graph.node(append).inputs;
  std::vector<ir::ValueId> inputs = graph.node(attention).inputs;
  a.append = true;
  a.rotary_dim = rope.rotary_dim;
  a.interleaved = rope.interleaved;
  a.packed = rope.packed;
  inputs[GenerationInputs::kQ] = projected[0];
  std::vector<ir::ValueId> more;
  if (!rope.packed) more.assign(projected.begin() + 1, projected.begin() + 3);
  if (rope.rotary_dim > 0) more.push_back(projected.back());
  inputs.insert(inputs.begin() + GenerationInputs::kOut + 1, more.begin(), more.end());
  const ir::ValueId made = add_before(graph, attention, a, std::move(inputs))[0];
  graph.replace_uses(graph.node(attention).outputs[0], made);
  graph.erase(attention);
  rope.phase = "context";
  graph.node(append).attrs = ops::to_attrs(rope);
}

}  // namespace

void fuse_rope(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    if (graph.node(id).op != ops::AttentionGeneration::kName) continue;
    const auto a = attrs_of<ops::AttentionGeneration>(graph, id);
    const ir::NodeId append =
        made_by<ops::RopeAppend>(graph, graph.node(id).inputs[GenerationInputs::kQ]);
    if (append == ir::kNone || a.append || a.beams > 0) continue;
    const auto rope = attrs_of<ops::RopeAppend>(graph, append);
    if (rope.qk_norm || rope.phase != "both" || !is_alone(graph, append, id)) continue;
    fuse(graph, append, id);
  }
}

}  // namespace millrace::compiler
