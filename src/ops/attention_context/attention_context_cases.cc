#include <array>
#include <iterator>

#include "ops/harness/attention_case.h"
#include "ops/harness/kv_spec.h"

namespace millrace::ops {
namespace {

constexpr RequestType kContext = RequestType::kContext, kGeneration = RequestType::kGeneration;

/// Ragged sequences of both phases, with rows between them that none owns.
KvCaseSpec mixed_step() {
  return {.sequences = {{0, 5, kContext},
                        {0, 70, kContext},
                        {33, 1, kContext},
                        {64, 67, kContext},
                        {12, 0, kContext},
                        {130, 131, kContext},
                        {20, 1, kGeneration},
                        {9, 3, kGeneration}},
          .row_gap = 2};
}

/// Prompts of one token up to several tiles of keys, chunks that begin inside of tiles.
KvCaseSpec prompts_and_chunks(ir::DType dtype, int tokens_per_block) {
  return {.sequences = {{0, 1, kContext},
                        {0, 63, kContext},
                        {0, 64, kContext},
                        {0, 65, kContext},
                        {0, 200, kContext},
                        {0, 513, kContext},
                        {7, 0, kContext},
                        {97, 70, kContext},
                        {300, 129, kContext},
                        {128, 1, kContext},
                        {40, 1, kGeneration},
                        {9, 3, kGeneration}},
          .dtype = dtype,
          .tokens_per_block = tokens_per_block,
          .row_gap = 3};
}

/// One bf16 or f16 type for queries, cache and outputs.
Case narrow(std::string name, const AttentionShape& shape, ir::DType dtype, int tokens_per_block) {
  return attention_case(std::move(name), shape, prompts_and_chunks(dtype, tokens_per_block), dtype);
}

/// bf16 or f16 queries over a cache of 8 bits.
Case widened(std::string name, const AttentionShape& shape, ir::DType q, ir::DType stored,
             int tokens_per_block) {
  return attention_case(std::move(name), shape, prompts_and_chunks(stored, tokens_per_block), q);
}

Case timed(std::string name, const AttentionShape& shape, const KvCaseSequence& sequence,
           ir::DType q = ir::DType::kF32, ir::DType stored = ir::DType::kBF16,
           int tokens_per_block = 64) {
  Case c = attention_case(
      std::move(name), shape,
      {.sequences = {sequence}, .dtype = stored, .tokens_per_block = tokens_per_block}, q);
  c.benchmark = true;
  return c;
}

std::vector<Case> plain_cases() {
  using enum ir::DType;
  return {
      attention_case("ragged prompts and chunks", kSmallHeads, mixed_step()),
      attention_case("one token", kSmallHeads, {.sequences = {{0, 1, kContext}}}),
      attention_case("three heads share one", {3, 1, 24, 24, 0.2F, 0, 0}, mixed_step()),
      attention_case("a head each", {4, 4, 64, 64, 0.125F, 0, 0}, mixed_step()),
      attention_case("heads of 80", {6, 2, 80, 80, 0.1118F, 0, 0}, mixed_step()),
      attention_case("heads of 128", {5, 5, 128, 128, 0.0884F, 0, 0}, mixed_step()),
      attention_case("V smaller than K", {4, 2, 192, 128, 0.0722F, 0, 0}, mixed_step()),
      attention_case("head sizes that no vector divides", {2, 1, 27, 13, 0.19F, 0, 0},
                     mixed_step()),
      attention_case("window and sinks, blocks between them freed", {4, 2, 16, 16, 0.25F, 33, 20},
                     stored_as(mixed_step(), kF32, 4)),
      attention_case("window", {4, 2, 16, 16, 0.25F, 64, 0}, mixed_step()),
      attention_case("bf16 cache", kOneBillionHeads, stored_as(mixed_step(), kBF16, 64)),
      attention_case("f16 cache, contiguous", kSmallHeads, stored_as(mixed_step(), kF16, 0)),
      attention_case("bf16 activations", kSmallHeads, stored_as(mixed_step(), kBF16, 16), kBF16),
      attention_case("f16 activations", kSmallHeads, stored_as(mixed_step(), kF16, 16), kF16),
  };
}

/// 16 bits, as tensor cores take them.
std::vector<Case> narrow_cases() {
  using enum ir::DType;
  return {
      narrow("bf16, heads of 64", {8, 2, 64, 64, 0.125F, 0, 0}, kBF16, 64),
      narrow("bf16, heads of 64, one to a KV head", {2, 2, 64, 64, 0.125F, 0, 0}, kBF16, 16),
      narrow("bf16, heads of 128", {8, 2, 128, 128, 0.0884F, 0, 0}, kBF16, 64),
      narrow("bf16, heads of 128, blocks of 8", {8, 1, 128, 128, 0.0884F, 0, 0}, kBF16, 8),
      narrow("bf16, heads of 128, blocks of 4", {4, 2, 128, 128, 0.0884F, 0, 0}, kBF16, 4),
      narrow("bf16, heads of 128, three to a KV head", {6, 2, 128, 128, 0.0884F, 0, 0}, kBF16, 256),
      narrow("bf16, heads of 128, contiguous", {4, 4, 128, 128, 0.0884F, 0, 0}, kBF16, 0),
      // More query rows than one unit for each multiprocessor of an H200 holds.
      narrow("bf16, 16 heads of 128", {16, 4, 128, 128, 0.0884F, 0, 0}, kBF16, 64),
      narrow("bf16, 24 heads of 64", {24, 3, 64, 64, 0.125F, 0, 0}, kBF16, 64),
      narrow("bf16, heads of 256", {8, 1, 256, 256, 0.0625F, 0, 0}, kBF16, 64),
      narrow("bf16, heads of 256, contiguous", {4, 1, 256, 256, 0.0625F, 0, 0}, kBF16, 0),
      narrow("f16, heads of 64, blocks of 128", {8, 1, 64, 64, 0.125F, 0, 0}, kF16, 128),
      narrow("f16, heads of 128", {4, 1, 128, 128, 0.0884F, 0, 0}, kF16, 32),
      narrow("f16, heads of 256", {2, 2, 256, 256, 0.0625F, 0, 0}, kF16, 16),
      narrow("bf16, window", {8, 2, 128, 128, 0.0884F, 100, 0}, kBF16, 64),
      narrow("bf16, window and sinks, heads of 64", {8, 2, 64, 64, 0.125F, 50, 20}, kBF16, 16),
      narrow("bf16, window and sinks", {8, 2, 128, 128, 0.0884F, 33, 140}, kBF16, 8),
      narrow("f16, window and sinks, heads of 256", {4, 1, 256, 256, 0.0625F, 70, 5}, kF16, 64),
      attention_case("heads of 112", {3, 3, 112, 112, 0.0945F, 0, 0}, mixed_step()),
      narrow("bf16, heads of 112", {6, 2, 112, 112, 0.0945F, 0, 0}, kBF16, 16),
      narrow("f16, heads of 24", {4, 2, 24, 24, 0.2F, 0, 0}, kF16, 16),
      narrow("bf16, heads of 96", {6, 3, 96, 96, 0.1021F, 0, 0}, kBF16, 32),
      narrow("bf16, V smaller than K", {4, 2, 192, 128, 0.0722F, 0, 0}, kBF16, 64),
  };
}

/// What is done with logits.
std::vector<Case> logit_cases() {
  using enum ir::DType;
  return {
      attention_case("soft cap", kSoftCapHeads, mixed_step()),
      narrow("soft cap, window, bf16", kWideSoftCapHeads, kBF16, 64),
      attention_case("ALiBi", kAlibiHeads, mixed_step()),
      narrow("ALiBi, shared KV heads, not a power of two, f16", kSharedAlibiHeads, kF16, 16),
      attention_case("Falcon's ALiBi", kFalconHeads, mixed_step()),
      narrow("Falcon's ALiBi, bf16",
             {.heads = 5,
              .kv_heads = 5,
              .head_size = 64,
              .v_head_size = 64,
              .scale = 0.125F,
              .alibi_max_bias = 8,
              .alibi_bf16 = true},
             kBF16, 64),
      attention_case("sink logits, window and sink tokens", kSinkLogitHeads, mixed_step()),
      narrow("sink logits, bf16", kGptOssHeads, kBF16, 64),
      narrow("sink logits, f16, blocks of 4",
             {.heads = 4,
              .kv_heads = 2,
              .head_size = 128,
              .v_head_size = 128,
              .scale = 0.0884F,
              .sink_logits = true},
             kF16, 4),
      attention_case("relative bias", kRelativeHeads, mixed_step()),
      narrow("relative bias, bf16",
             {.heads = 4,
              .kv_heads = 4,
              .head_size = 64,
              .v_head_size = 64,
              .scale = 0.125F,
              .relative_buckets = 32,
              .relative_max_distance = 128},
             kBF16, 64),
      attention_case("everything at once", everything_at_once(90),
                     stored_as(mixed_step(), kBF16, 16)),
  };
}

/// Caches of 8 bits.
std::vector<Case> eight_bit_cases() {
  using enum ir::DType;
  return {
      attention_case("int8 cache", kSmallHeads, stored_as(mixed_step(), kI8, 16)),
      attention_case("int8 cache, bf16 activations", kOneBillionHeads,
                     stored_as(mixed_step(), kI8, 64), kBF16),
      attention_case("int8 cache, odd heads, soft cap and ALiBi", odd_heads(60),
                     stored_as(mixed_step(), kI8, 4)),
      attention_case("fp8 cache", {5, 5, 128, 128, 0.0884F, 0, 0},
                     stored_as(mixed_step(), kF8E4M3, 16)),
      attention_case("fp8 cache, f16 activations, contiguous", kOneBillionHeads,
                     stored_as(mixed_step(), kF8E4M3, 0), kF16),
      widened("int8 cache, bf16, heads of 128", kEightBillionHeads, kBF16, kI8, 64),
      widened("int8 cache, f16, heads of 128, contiguous", kEightBillionHeads, kF16, kI8, 0),
      widened("fp8 cache, bf16, heads of 256", {8, 1, 256, 256, 0.0625F, 0, 0}, kBF16, kF8E4M3, 16),
      widened("int8 cache, f16, heads of 64", kOneBillionHeads, kF16, kI8, 4),
      widened("fp8 cache, bf16, V smaller than K", {4, 2, 192, 128, 0.0722F, 0, 0}, kBF16, kF8E4M3,
              64),
      widened("int8 cache, bf16, window and sinks", {4, 2, 64, 64, 0.125F, 100, 20}, kBF16, kI8,
              16),
      widened("int8 cache, bf16, soft cap, heads of 256", kWideSoftCapHeads, kBF16, kI8, 64),
      widened("fp8 cache, f16, ALiBi", kSharedAlibiHeads, kF16, kF8E4M3, 16),
      widened("int8 cache, bf16, sink logits", kGptOssHeads, kBF16, kI8, 64),
      widened("int8 cache, bf16, heads of 24", {4, 2, 24, 24, 0.2F, 0, 0}, kBF16, kI8, 16),
  };
}

std::vector<Case> timed_cases() {
  using enum ir::DType;
  return {
      timed("prompt of 512 of 1B", kOneBillionHeads, {0, 512, kContext}),
      timed("prompt of 2048 of 1B", kOneBillionHeads, {0, 2048, kContext}),
      timed("prompt of 2048 of 8B, bf16", kEightBillionHeads, {0, 2048, kContext}, kBF16),
      timed("prompt of 2048 of 8B, bf16, int8 cache", kEightBillionHeads, {0, 2048, kContext},
            kBF16, kI8),
      timed("prompt of 2048 of 8B, bf16, fp8 cache", kEightBillionHeads, {0, 2048, kContext}, kBF16,
            kF8E4M3),
      timed("prompt of 8192 of 8B, bf16", kEightBillionHeads, {0, 8192, kContext}, kBF16),
      timed("prompt of 2048 of 8B, bf16, contiguous", kEightBillionHeads, {0, 2048, kContext},
            kBF16, kBF16, 0),
      timed("prompt of 8192 of 8B, bf16, contiguous", kEightBillionHeads, {0, 8192, kContext},
            kBF16, kBF16, 0),
      timed("chunk of 512 behind 8192 of 8B, bf16", kEightBillionHeads, {8192, 512, kContext},
            kBF16),
      timed("prompt of 2048 of 1B, bf16", kOneBillionHeads, {0, 2048, kContext}, kBF16),
  };
}

}  // namespace

std::vector<Case> attention_context_cases() {
  std::vector<Case> all;
  for (std::vector<Case>& cases : std::to_array(
           {plain_cases(), narrow_cases(), logit_cases(), eight_bit_cases(), timed_cases()})) {
    all.insert(all.end(), std::make_move_iterator(cases.begin()),
               std::make_move_iterator(cases.end()));
  }
  return all;
}

}  // namespace millrace::ops
