#include "ops/harness/attention_case.h"

#include <utility>

namespace millrace::ops {

KvCaseSpec with_heads(KvCaseSpec spec, const AttentionShape& shape) {
  spec.kv_heads = shape.kv_heads;
  spec.k_size = shape.head_size;
  spec.v_size = shape.v_head_size;
  spec.freed_before_window = shape.window;
  spec.sink_tokens = shape.sink_tokens;
  spec.beams = shape.beams;
  return spec;
}

ir::Attrs attention_attrs(const AttentionShape& shape) {
  ir::Attrs attrs;
  attrs.set("heads", int64_t{shape.heads});
  attrs.set("kv_heads", int64_t{shape.kv_heads});
  attrs.set("head_size", int64_t{shape.head_size});
  attrs.set("v_head_size", int64_t{shape.v_head_size});
  attrs.set("scale", double{shape.scale});
  attrs.set("window", int64_t{shape.window});
  attrs.set("sink_tokens", int64_t{shape.sink_tokens});
  if (shape.beams > 0) attrs.set("beams", int64_t{shape.beams});
  attrs.set("softcap", double{shape.softcap});
  attrs.set("alibi_max_bias", double{shape.alibi_max_bias});
  attrs.set("alibi_bf16", shape.alibi_bf16);
  attrs.set("sink_logits", shape.sink_logits);
  attrs.set("relative_buckets", int64_t{shape.relative_buckets});
  attrs.set("relative_max_distance", int64_t{shape.relative_max_distance});
  return attrs;
}

Case attention_case(std::string name, const AttentionShape& shape, const KvCaseSpec& spec,
                    ir::DType q, bool has_out) {
  const KvCaseSpec sized = with_heads(spec, shape);
  const int64_t rows = KvCase(sized).rows();
  Case c{.name = std::move(name), .attrs = attention_attrs(shape)};
  c.inputs.push_back(normal(q, {rows, int64_t{shape.heads} * shape.head_size}, 2));
  for (InputSpec& input : kv_inputs(sized))
    c.inputs.push_back(std::move(input));
  if (has_out) c.inputs.push_back(normal(q, {rows, int64_t{shape.heads} * shape.v_head_size}));
  if (shape.sink_logits) c.inputs.push_back(normal(ir::DType::kF32, {shape.heads}, 3));
  if (shape.relative_buckets > 0) {
    c.inputs.push_back(normal(q, {shape.relative_buckets, shape.heads}, 2));
  }
  if (shape.beams > 0) {
    for (InputSpec& input : beam_inputs(sized))
      c.inputs.push_back(std::move(input));
  }
  c.tolerance = q == ir::DType::kF32 ? 3e-6 : 0;
  return c;
}

}  // namespace millrace::ops
