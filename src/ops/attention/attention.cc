#include "ops/attention/attention.h"

#include <cmath>

#include "base/error.h"
#include "ops/common/attention_ref.h"
#include "ops/common/sequence_rows.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

constexpr size_t kQ = 0, kK = 1, kV = 2, kSequence = 3, kCache = kSequence + kNumSequenceInputs;

void check_attributes(const Attention& a) {
  check_heads(a.heads, a.kv_heads, a.head_size, a.v_head_size);
  if (!(a.scale > 0) || !std::isfinite(a.scale)) {
    throw_bad_input(str("scale must be a positive number, got ", a.scale));
  }
  if (a.rotary_dim < 0 || a.rotary_dim > a.head_size || a.rotary_dim % 2 != 0) {
    throw_bad_input(str("rotary_dim must be even and at most head_size, got ", a.rotary_dim));
  }
  if (a.window < 0 || a.sink_tokens < 0) {
    throw_bad_input("window and sink_tokens must not be negative");
  }
}

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<Attention>(attrs);
  check_attributes(a);
  check_sequence_inputs(in, kSequence);
  check_rows(in[kQ], int64_t{a.heads} * a.head_size, "q");
  check_rows(in[kK], int64_t{a.kv_heads} * a.head_size, "k");
  check_rows(in[kV], int64_t{a.kv_heads} * a.v_head_size, "v");
  size_t next = kCache + 1;
  const AttentionShape shape = AttentionShape::of(a);
  const size_t expected =
      next + (a.rotary_dim > 0 ? 1 : 0) + (a.qk_norm ? 2 : 0) + shape.extra_inputs();
  if (in.size() != expected) {
    throw_bad_input(str("expected ", expected, " inputs, got ", in.size()));
  }
  if (a.rotary_dim > 0) check_rows(in[next++], a.rotary_dim, "angles");
  if (a.qk_norm) {
    check_vector(in[next++], a.head_size, "q_norm");
    check_vector(in[next++], a.head_size, "k_norm");
  }
  check_logits(in, shape);
  return {{in[kQ].dtype, {in[kQ].shape[0], int64_t{a.heads} * a.v_head_size}}, in[kCache]};
}

/// Never asked once the graph is lowered.
Cost cost(const Launch&) {
  return {};
}

}  // namespace

const Op& op_attention() {
  static const Op op = {.name = "attention",
                        .tactics = {},
                        .infer = infer,
                        .parse_attrs = parse_attrs<Attention>,
                        .cost = cost};
  return op;
}

}  // namespace millrace::ops
