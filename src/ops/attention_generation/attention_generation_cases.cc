#include <array>
#include <iterator>
#include <utility>

#include "ops/harness/attention_case.h"
#include "ops/harness/kv_spec.h"

namespace millrace::ops {
namespace {

constexpr RequestType kContext = RequestType::kContext, kGeneration = RequestType::kGeneration;

/// Ragged sequences of both phases, with rows between them that none owns. The last two have no
/// rows, like those that fill a captured step.
KvCaseSpec mixed_step() {
  return {.sequences = {{0, 5, kContext},
                        {70, 2, kContext},
                        {0, 1, kGeneration},
                        {700, 1, kGeneration},
                        {255, 1, kGeneration},
                        {256, 1, kGeneration},
                        {31, 4, kGeneration},
                        {5, 0, kGeneration},
                        {254, 9, kGeneration},
                        {130, 1, kGeneration},
                        {0, 0, kGeneration},
                        {0, 0, kGeneration}},
          .row_gap = 3};
}

/// Two requests of three beams behind a prompt.
KvCaseSpec beams() {
  KvCaseSpec spec{.sequences = {{3, 4, kContext}}, .row_gap = 1};
  for (const int past : {70, 70, 70, 701, 701, 701})
    spec.sequences.push_back({past, 1, kGeneration});
  return spec;
}

/// Lengths around the edges of tiles and pieces.
KvCaseSpec edges() {
  KvCaseSpec spec{.sequences = {}, .row_gap = 1};
  for (const int length :
       {1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1023, 1024, 1025})
    spec.sequences.push_back({length - 1, 1, kGeneration});
  return spec;
}

/// With the output that it adds to.
Case make(std::string name, const AttentionShape& shape, const KvCaseSpec& spec,
          ir::DType q = ir::DType::kF32) {
  return attention_case(std::move(name), shape, spec, q, true);
}

Case split(Case c, int64_t pieces) {
  c.attrs.set("splits", pieces);
  return c;
}

Case timed(std::string name, const AttentionShape& shape, int past, size_t batch,
           ir::DType q = ir::DType::kF32, ir::DType stored = ir::DType::kBF16) {
  Case c = make(std::move(name), shape,
                {.sequences = std::vector<KvCaseSequence>(batch, {past, 1, kGeneration}),
                 .dtype = stored,
                 .tokens_per_block = 64},
                q);
  c.benchmark = true;
  return c;
}

std::vector<Case> plain_cases() {
  using enum ir::DType;
  return {
      make("ragged", kSmallHeads, mixed_step()),
      make("one key", kSmallHeads, {.sequences = {{0, 1, kGeneration}}}),
      make("three heads share one", {3, 1, 24, 24, 0.2F, 0, 0}, mixed_step()),
      make("a head each", {4, 4, 64, 64, 0.125F, 0, 0}, mixed_step()),
      make("heads of 80", {6, 2, 80, 80, 0.1118F, 0, 0}, mixed_step()),
      make("heads of 128", {5, 5, 128, 128, 0.0884F, 0, 0}, mixed_step()),
      make("V smaller than K", {4, 2, 192, 128, 0.0722F, 0, 0}, mixed_step()),
      make("head sizes that no vector divides", {2, 1, 27, 13, 0.19F, 0, 0}, mixed_step()),
      make("many heads share one", {40, 1, 16, 16, 0.25F, 0, 0}, mixed_step()),
      make("window and sinks, blocks between them freed", {4, 2, 16, 16, 0.25F, 300, 20},
           stored_as(mixed_step(), kF32, 4)),
      make("window", {4, 2, 16, 16, 0.25F, 64, 0}, mixed_step()),
      split(make("one piece", kSmallHeads, mixed_step()), 1),
      split(make("more pieces than keys", kSmallHeads, mixed_step()), 32),
      make("bf16 cache", kOneBillionHeads, stored_as(mixed_step(), kBF16, 64)),
      make("f16 cache, contiguous", kSmallHeads, stored_as(mixed_step(), kF16, 0)),
      make("bf16 activations", kSmallHeads, stored_as(mixed_step(), kBF16, 16), kBF16),
      make("f16 activations", kSmallHeads, stored_as(mixed_step(), kF16, 16), kF16),
  };
}

/// 16 bits, as tensor cores take them.
std::vector<Case> narrow_cases() {
  using enum ir::DType;
  return {
      make("16-bit, a head each", {4, 4, 64, 64, 0.125F, 0, 0}, stored_as(mixed_step(), kBF16, 16),
           kBF16),
      make("16-bit, heads of 64", kOneBillionHeads, stored_as(mixed_step(), kF16, 64), kF16),
      make("16-bit, heads of 80", {6, 2, 80, 80, 0.1118F, 0, 0}, stored_as(mixed_step(), kBF16, 32),
           kBF16),
      make("16-bit, heads of 96", {6, 3, 96, 96, 0.1021F, 0, 0}, stored_as(mixed_step(), kF16, 32),
           kF16),
      make("16-bit, heads of 128", kEightBillionHeads, stored_as(mixed_step(), kBF16, 64), kBF16),
      make("16-bit, heads of 256", {8, 1, 256, 256, 0.0625F, 0, 0},
           stored_as(mixed_step(), kBF16, 64), kBF16),
      make("16-bit, eight heads share one", {16, 2, 128, 128, 0.0884F, 0, 0},
           stored_as(mixed_step(), kF16, 64), kF16),
      make("16-bit, contiguous", {4, 1, 128, 128, 0.0884F, 0, 0}, stored_as(mixed_step(), kBF16, 0),
           kBF16),
      make("16-bit, edges of pieces", kEightBillionHeads, stored_as(edges(), kBF16, 64), kBF16),
      make("16-bit, edges of pieces, a head each", {3, 3, 64, 64, 0.125F, 0, 0},
           stored_as(edges(), kF16, 16), kF16),
      make("16-bit, window", {4, 2, 128, 128, 0.0884F, 64, 0}, stored_as(mixed_step(), kBF16, 16),
           kBF16),
      make("16-bit, window and sinks", {4, 2, 64, 64, 0.125F, 300, 20},
           stored_as(mixed_step(), kBF16, 16), kBF16),
      make("16-bit, more sinks than lie before the window", {4, 2, 64, 64, 0.125F, 250, 40},
           stored_as(mixed_step(), kF16, 16), kF16),
      split(
          make("16-bit, one piece", kEightBillionHeads, stored_as(mixed_step(), kBF16, 64), kBF16),
          1),
      split(make("16-bit, 32 pieces", kEightBillionHeads, stored_as(mixed_step(), kF16, 64), kF16),
            32),
      make("16-bit, blocks that no tile fits", kEightBillionHeads,
           stored_as(mixed_step(), kBF16, 8), kBF16),
      make("16-bit, cache of another type", kEightBillionHeads, stored_as(mixed_step(), kBF16, 64),
           kF16),
  };
}

/// Beams, and heads of other sizes.
std::vector<Case> beam_cases() {
  using enum ir::DType;
  return {
      make("beams",
           {.heads = 6,
            .kv_heads = 2,
            .head_size = 16,
            .v_head_size = 16,
            .scale = 0.25F,
            .beams = 3},
           beams()),
      make("beams, window and sinks",
           {.heads = 4,
            .kv_heads = 2,
            .head_size = 16,
            .v_head_size = 16,
            .scale = 0.25F,
            .window = 60,
            .sink_tokens = 5,
            .beams = 3},
           stored_as(beams(), kF32, 4)),
      make("beams, contiguous",
           {.heads = 4,
            .kv_heads = 1,
            .head_size = 27,
            .v_head_size = 13,
            .scale = 0.19F,
            .beams = 3},
           stored_as(beams(), kF16, 0)),
      make("beams, 16-bit",
           {.heads = 8,
            .kv_heads = 2,
            .head_size = 128,
            .v_head_size = 128,
            .scale = 0.0884F,
            .beams = 3},
           stored_as(beams(), kBF16, 64), kBF16),
      make("beams, int8 cache",
           {.heads = 6,
            .kv_heads = 2,
            .head_size = 64,
            .v_head_size = 64,
            .scale = 0.125F,
            .beams = 3},
           stored_as(beams(), kI8, 16)),
      make("heads of 112", {3, 3, 112, 112, 0.0945F, 0, 0}, mixed_step()),
      make("16-bit, heads of 112", {6, 2, 112, 112, 0.0945F, 0, 0},
           stored_as(mixed_step(), kBF16, 16), kBF16),
      make("16-bit, heads of 24", {4, 2, 24, 24, 0.2F, 0, 0}, stored_as(mixed_step(), kF16, 16),
           kF16),
      make("16-bit, V smaller than K", {4, 2, 192, 128, 0.0722F, 0, 0},
           stored_as(mixed_step(), kBF16, 64), kBF16),
  };
}

/// What is done with logits.
std::vector<Case> logit_cases() {
  using enum ir::DType;
  return {
      make("soft cap", kSoftCapHeads, mixed_step()),
      make("soft cap, window, bf16", kWideSoftCapHeads, stored_as(mixed_step(), kBF16, 64), kBF16),
      make("ALiBi", kAlibiHeads, mixed_step()),
      make("ALiBi, shared KV heads, not a power of two, f16", kSharedAlibiHeads,
           stored_as(mixed_step(), kF16, 16), kF16),
      make("Falcon's ALiBi", kFalconHeads, mixed_step()),
      make("sink logits, window and sink tokens", kSinkLogitHeads, mixed_step()),
      make("sink logits, bf16", kGptOssHeads, stored_as(mixed_step(), kBF16, 64), kBF16),
      split(make("sink logits, 32 pieces",
                 {.heads = 4,
                  .kv_heads = 2,
                  .head_size = 128,
                  .v_head_size = 128,
                  .scale = 0.0884F,
                  .sink_logits = true},
                 stored_as(mixed_step(), kF16, 64), kF16),
            32),
      make("relative bias", kRelativeHeads, mixed_step()),
      make("everything at once", everything_at_once(200), stored_as(mixed_step(), kBF16, 16)),
  };
}

/// Caches of 8 bits.
std::vector<Case> eight_bit_cases() {
  using enum ir::DType;
  return {
      make("int8 cache", kSmallHeads, stored_as(mixed_step(), kI8, 16)),
      make("int8 cache, bf16 activations", kOneBillionHeads, stored_as(mixed_step(), kI8, 64),
           kBF16),
      make("int8 cache, odd heads, soft cap and ALiBi", odd_heads(200),
           stored_as(mixed_step(), kI8, 4)),
      make("fp8 cache", {5, 5, 128, 128, 0.0884F, 0, 0}, stored_as(mixed_step(), kF8E4M3, 16)),
      make("fp8 cache, f16 activations, contiguous", kOneBillionHeads,
           stored_as(mixed_step(), kF8E4M3, 0), kF16),
      make("int8 cache, f16, contiguous", {4, 1, 128, 128, 0.0884F, 0, 0},
           stored_as(mixed_step(), kI8, 0), kF16),
      make("int8 cache, bf16, heads of 128", kEightBillionHeads, stored_as(mixed_step(), kI8, 64),
           kBF16),
      make("fp8 cache, bf16, heads of 128", kEightBillionHeads,
           stored_as(mixed_step(), kF8E4M3, 32), kBF16),
      make("int8 cache, bf16, heads of 256", {8, 1, 256, 256, 0.0625F, 0, 0},
           stored_as(mixed_step(), kI8, 64), kBF16),
      make("fp8 cache, f16, heads of 256", {8, 1, 256, 256, 0.0625F, 0, 0},
           stored_as(mixed_step(), kF8E4M3, 64), kF16),
      make("int8 cache, f16, 16 heads share one", {16, 1, 128, 128, 0.0884F, 0, 0},
           stored_as(mixed_step(), kI8, 64), kF16),
      make("fp8 cache, bf16, 16 heads of 64 share one", {32, 2, 64, 64, 0.125F, 0, 0},
           stored_as(mixed_step(), kF8E4M3, 16), kBF16),
      make("int8 cache, bf16, edges of pieces", kEightBillionHeads, stored_as(edges(), kI8, 64),
           kBF16),
      make("fp8 cache, f16, edges of pieces, a head each", {3, 3, 64, 64, 0.125F, 0, 0},
           stored_as(edges(), kF8E4M3, 16), kF16),
      make("int8 cache, bf16, window and sinks", {4, 2, 64, 64, 0.125F, 300, 20},
           stored_as(mixed_step(), kI8, 16), kBF16),
      split(make("int8 cache, bf16, 32 pieces", kEightBillionHeads,
                 stored_as(mixed_step(), kI8, 64), kBF16),
            32),
      make("int8 cache, bf16, sink logits", kGptOssHeads, stored_as(mixed_step(), kI8, 64), kBF16),
      make("int8 cache, bf16, blocks that no tile fits", kEightBillionHeads,
           stored_as(mixed_step(), kI8, 8), kBF16),
      make("int8 cache, bf16, heads of 96", {6, 3, 96, 96, 0.1021F, 0, 0},
           stored_as(mixed_step(), kI8, 32), kBF16),
  };
}

std::vector<Case> timed_cases() {
  using enum ir::DType;
  return {
      timed("1 x 1k of 1B", kOneBillionHeads, 1023, 1),
      timed("1 x 8k of 1B", kOneBillionHeads, 8191, 1),
      timed("1 x 32k of 1B", kOneBillionHeads, 32767, 1),
      timed("16 x 1k of 1B", kOneBillionHeads, 1023, 16),
      timed("1 x 8k of 8B", kEightBillionHeads, 8191, 1),
      timed("1 x 1k of 8B, bf16", kEightBillionHeads, 1023, 1, kBF16),
      timed("1 x 128k of 8B, bf16", kEightBillionHeads, 131071, 1, kBF16),
      timed("64 x 4k of 8B, bf16", kEightBillionHeads, 4095, 64, kBF16),
      timed("1 x 180 of 8B, bf16", kEightBillionHeads, 179, 1, kBF16),
      timed("32 x 180 of 8B, bf16", kEightBillionHeads, 179, 32, kBF16),
      timed("128 x 180 of 8B, bf16", kEightBillionHeads, 179, 128, kBF16),
      timed("128 x 512 of 8B, bf16", kEightBillionHeads, 511, 128, kBF16),
      timed("64 x 4k of 8B, bf16, int8 cache", kEightBillionHeads, 4095, 64, kBF16, kI8),
      timed("64 x 4k of 8B, bf16, fp8 cache", kEightBillionHeads, 4095, 64, kBF16, kF8E4M3),
      timed("1 x 128k of 8B, bf16, int8 cache", kEightBillionHeads, 131071, 1, kBF16, kI8),
      timed("1 x 128k of 8B, bf16, fp8 cache", kEightBillionHeads, 131071, 1, kBF16, kF8E4M3),
      timed("16 x 4k of 13B, bf16", kThirteenBillionHeads, 4095, 16, kBF16),
  };
}

}  // namespace

std::vector<Case> attention_generation_cases() {
  std::vector<Case> all;
  for (std::vector<Case>& cases :
       std::to_array({plain_cases(), narrow_cases(), beam_cases(), logit_cases(), eight_bit_cases(),
                      timed_cases()})) {
    all.insert(all.end(), std::make_move_iterator(cases.begin()),
               std::make_move_iterator(cases.end()));
  }
  return all;
}

}  // namespace millrace::ops
