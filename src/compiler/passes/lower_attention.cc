// lower_attention: attention becomes the ops that run it.
//
//   %o, %c1 = attention(%q, %k, %v, <sequence inputs>, %c0, %angles)
//     ->
//   %r, %c1 = rope_append(%q, %k, %v, <sequence inputs>, %c0, %angles)
//   %p = attention_context(%r, <sequence inputs>, %c1)
//   %o = attention_generation(%r, <sequence inputs>, %c1, %p)
//
// With beams the beam inputs stand behind all others, of attention and of attention_generation.
// When q, k and v are the neighbouring slices of one product (merge_qkv), rope_append reads that
// product (`packed`). Decoder attention reads K and V only as stored, this step's tokens included:
// so a prompt in pieces, a reused prefix and generation all see the same numbers.
#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "ops/attention/attention.h"
#include "ops/attention_context/attention_context.h"
#include "ops/attention_generation/attention_generation.h"
#include "ops/common/sequence_inputs.h"
#include "ops/rope_append/rope_append.h"
#include "ops/slice_cols/slice_cols.h"

namespace millrace::compiler {
namespace {

// The value that q, k and v are slices of, side by side and covering it, or kNone.
ir::ValueId packed_source(const ir::Graph& graph, const std::vector<ir::ValueId>& inputs) {
  ir::ValueId source = ir::kNone;
  int next = 0;
  for (size_t i = 0; i < 3; ++i) {
    const ir::NodeId slice = made_by<ops::SliceCols>(graph, inputs[i]);
    if (slice == ir::kNone) return ir::kNone;
    if (i == 0) source = graph.node(slice).inputs[0];
    const auto range = attrs_of<ops::SliceCols>(graph, slice);
    if (graph.node(slice).inputs[0] != source || range.begin != next) return ir::kNone;
    next = range.end;
  }
  return next == graph.type(source).shape.back().value() ? source : ir::kNone;
}

ops::RopeAppend rope_attrs(const ops::Attention& a, bool packed) {
  return {.heads = a.heads,
          .kv_heads = a.kv_heads,
          .head_size = a.head_size,
          .v_head_size = a.v_head_size,
          .rotary_dim = a.rotary_dim,
          .interleaved = a.interleaved,
          .qk_norm = a.qk_norm,
          .qk_norm_eps = a.qk_norm_eps,
          .qk_norm_offset = a.qk_norm_offset,
          .packed = packed};
}

template <typename Phase>
Phase phase_attrs(const ops::Attention& a) {
  Phase phase;
  phase.heads = a.heads;
  phase.kv_heads = a.kv_heads;
  phase.head_size = a.head_size;
  phase.v_head_size = a.v_head_size;
  phase.scale = a.scale;
  phase.window = a.window;
  phase.sink_tokens = a.sink_tokens;
  phase.softcap = a.softcap;
  phase.alibi_max_bias = a.alibi_max_bias;
  phase.alibi_bf16 = a.alibi_bf16;
  phase.sink_logits = a.sink_logits;
  phase.relative_buckets = a.relative_buckets;
  phase.relative_max_distance = a.relative_max_distance;
  return phase;
}

void lower(ir::Graph& graph, ir::NodeId id) {
  const auto attrs = attrs_of<ops::Attention>(graph, id);
  const std::vector<ir::ValueId> in = graph.node(id).inputs;
  const auto sequence_begin = in.begin() + 3;
  const auto state = sequence_begin + ops::kNumSequenceInputs;
  const std::vector<ir::ValueId> sequence(sequence_begin, state);

  const ir::ValueId source = packed_source(graph, in);
  std::vector<ir::ValueId> append_inputs(in.begin(), sequence_begin);
  if (source != ir::kNone) append_inputs = {source};
  const auto beam_begin = in.end() - (attrs.beams > 0 ? int{ops::kNumBeamInputs} : 0);
  const auto extra =
      beam_begin - (attrs.sink_logits ? 1 : 0) - (attrs.relative_buckets > 0 ? 1 : 0);
  append_inputs.insert(append_inputs.end(), sequence_begin, extra);
  const auto appended =
      add_before(graph, id, rope_attrs(attrs, source != ir::kNone), std::move(append_inputs));

  std::vector<ir::ValueId> phase_inputs = {appended[0]};
  phase_inputs.insert(phase_inputs.end(), sequence.begin(), sequence.end());
  phase_inputs.push_back(appended[1]);
  std::vector<ir::ValueId> context_inputs = phase_inputs;
  context_inputs.insert(context_inputs.end(), extra, beam_begin);
  phase_inputs.push_back(add_before(graph, id, phase_attrs<ops::AttentionContext>(attrs),
                                    std::move(context_inputs))[0]);
  phase_inputs.insert(phase_inputs.end(), extra, in.end());
  auto generation = phase_attrs<ops::AttentionGeneration>(attrs);
  generation.beams = attrs.beams;
  const ir::ValueId out = add_before(graph, id, generation, std::move(phase_inputs))[0];
  graph.replace_uses(graph.node(id).outputs[0], out);
  graph.replace_uses(graph.node(id).outputs[1], appended[1]);
  graph.erase(id);
}

}  // namespace

void lower_attention(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (const ir::NodeId id : order) {
    if (graph.node(id).op == ops::Attention::kName) lower(graph, id);
  }
  remove_dead(graph);
}

}  // namespace millrace::compiler
