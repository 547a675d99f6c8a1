#include "ops/attention_context/attention_context.h"

#include "base/error.h"
#include "ops/attention_context/attention_context_tactics.h"
#include "ops/common/attention_ref.h"

namespace millrace::ops {
namespace {

constexpr Tactic kTactics[] = {
    {.name = "attention_context_ref", .run = attention_context_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<AttentionContext>(attrs);
  check_attention(in, AttentionShape::of(a));
  constexpr size_t kInputs = 1 + kNumSequenceInputs + 1;
  if (in.size() != kInputs) throw_bad_input(str("expected ", kInputs, " inputs, got ", in.size()));
  return {{in[0].dtype, {in[0].shape[0], int64_t{a.heads} * a.v_head_size}}};
}

Cost cost(const Launch& launch) {
  return attention_cost(launch, AttentionShape::of(launch.attrs<AttentionContext>()),
                        RequestType::kContext);
}

}  // namespace

const Op& op_attention_context() {
  static const Op op = {
      .name = "attention_context",
      .tactics = kTactics,
      .infer = infer,
      .parse_attrs = parse_attrs<AttentionContext>,
      .cost = cost,
      .phase = Phase::kContext,
  };
  return op;
}

}  // namespace millrace::ops
