// Harness cases of both attention ops.
#pragma once

#include <string>

#include "ops/common/attention_ref.h"
#include "ops/harness/cases.h"
#include "ops/harness/kv_case.h"

namespace millrace::ops {

/// Heads that cases of both ops have.
inline constexpr AttentionShape kSmallHeads{6, 2, 16, 16, 0.25F, 0, 0};
inline constexpr AttentionShape kOneBillionHeads{32, 8, 64, 64, 0.125F, 0, 0};       // Llama 3.2 1B
inline constexpr AttentionShape kEightBillionHeads{32, 8, 128, 128, 0.0884F, 0, 0};  // Llama 3.1 8B
inline constexpr AttentionShape kThirteenBillionHeads{40, 40, 128, 128, 0.0884F, 0, 0};  // Llama 2
inline constexpr AttentionShape kSoftCapHeads{
    .heads = 6, .kv_heads = 2, .head_size = 16, .v_head_size = 16, .scale = 0.5F, .softcap = 5};
inline constexpr AttentionShape kWideSoftCapHeads{.heads = 8,
                                                  .kv_heads = 1,
                                                  .head_size = 256,
                                                  .v_head_size = 256,
                                                  .scale = 0.0625F,
                                                  .window = 100,
                                                  .softcap = 20};
inline constexpr AttentionShape kAlibiHeads{.heads = 8,
                                            .kv_heads = 8,
                                            .head_size = 24,
                                            .v_head_size = 24,
                                            .scale = 0.2F,
                                            .alibi_max_bias = 8};
inline constexpr AttentionShape kSharedAlibiHeads{.heads = 6,
                                                  .kv_heads = 2,
                                                  .head_size = 64,
                                                  .v_head_size = 64,
                                                  .scale = 0.125F,
                                                  .alibi_max_bias = 6};
inline constexpr AttentionShape kFalconHeads{.heads = 12,
                                             .kv_heads = 12,
                                             .head_size = 16,
                                             .v_head_size = 16,
                                             .scale = 0.25F,
                                             .alibi_max_bias = 8,
                                             .alibi_bf16 = true};
inline constexpr AttentionShape kSinkLogitHeads{.heads = 6,
                                                .kv_heads = 2,
                                                .head_size = 16,
                                                .v_head_size = 16,
                                                .scale = 0.25F,
                                                .window = 30,
                                                .sink_tokens = 3,
                                                .sink_logits = true};
inline constexpr AttentionShape kGptOssHeads{.heads = 16,
                                             .kv_heads = 2,
                                             .head_size = 64,
                                             .v_head_size = 64,
                                             .scale = 0.125F,
                                             .window = 128,
                                             .sink_logits = true};
inline constexpr AttentionShape kRelativeHeads{.heads = 6,
                                               .kv_heads = 6,
                                               .head_size = 16,
                                               .v_head_size = 16,
                                               .scale = 1,
                                               .relative_buckets = 32,
                                               .relative_max_distance = 128};
/// Every attribute, sizes that no vector divides.
constexpr AttentionShape everything_at_once(int window) {
  return {.heads = 6,
          .kv_heads = 2,
          .head_size = 20,
          .v_head_size = 12,
          .scale = 0.3F,
          .window = window,
          .sink_tokens = 5,
          .softcap = 12,
          .alibi_max_bias = 4,
          .sink_logits = true,
          .relative_buckets = 6,
          .relative_max_distance = 20};
}
/// Sizes that no vector divides, a soft cap and ALiBi.
constexpr AttentionShape odd_heads(int window) {
  return {.heads = 6,
          .kv_heads = 2,
          .head_size = 27,
          .v_head_size = 13,
          .scale = 0.2F,
          .window = window,
          .sink_tokens = 3,
          .softcap = 8,
          .alibi_max_bias = 8};
}

/// `spec` with the head counts and sizes, window and sinks of `shape`.
KvCaseSpec with_heads(KvCaseSpec spec, const AttentionShape& shape);

/// The attributes of either op.
ir::Attrs attention_attrs(const AttentionShape& shape);

/// q, the sequence inputs and the cache, the rows that the op adds to if it `has_out`, and what the
/// attributes ask for besides. Logits are a few units apart, so that softmax is peaked:
/// their products, of up to 100 and summed in float, leave 3e-6 of the result.
Case attention_case(std::string name, const AttentionShape& shape, const KvCaseSpec& spec,
                    ir::DType q = ir::DType::kF32, bool has_out = false);

}  // namespace millrace::ops
