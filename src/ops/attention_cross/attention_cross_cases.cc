#include "ops/attention_cross/attention_cross.h"
#include "ops/harness/cases.h"
#include "ops/harness/kv_case.h"

namespace millrace::ops {
namespace {

struct CrossSequence {
  int encoder_length = 1;
  int rows = 1;
};

struct CrossTypes {
  ir::DType stored = ir::DType::kF32;
  ir::DType activations = ir::DType::kF32;
};

Case make(std::string name, const AttentionCross& a, const std::vector<CrossSequence>& sequences,
          int gap = 0, int tokens_per_block = 16, CrossTypes types = {}) {
  // The pool of a step that has brought nothing new: what is there was there before.
  KvCaseSpec spec{.sequences = {},
                  .kv_heads = a.kv_heads,
                  .k_size = a.head_size,
                  .v_size = a.v_head_size,
                  .dtype = types.stored,
                  .tokens_per_block = tokens_per_block};
  std::vector<int32_t> starts, lengths;
  int64_t rows = 0;
  for (const CrossSequence& sequence : sequences) {
    spec.sequences.push_back({.past = sequence.encoder_length, .rows = 0});
    starts.push_back(static_cast<int32_t>(rows += gap));
    lengths.push_back(sequence.rows);
    rows += sequence.rows;
  }
  rows += gap;
  const auto s = static_cast<int64_t>(sequences.size());
  const std::vector<InputSpec> kv = kv_inputs(spec);
  Case c{.name = std::move(name), .attrs = to_attrs(a)};
  c.inputs = {normal(types.activations, {rows, int64_t{a.heads} * a.head_size}, 2),
              kv[kSequenceLength],
              ints({s}, starts),
              ints({s}, lengths),
              kv[kBlockOffsets],
              kv[kNumSequenceInputs]};
  // Products of up to 100, summed in float, leave 3e-6 of the result.
  c.tolerance = types.activations == ir::DType::kF32 ? 3e-6 : 0;
  return c;
}

Case timed(Case c) {
  c.benchmark = true;
  return c;
}

}  // namespace

std::vector<Case> attention_cross_cases() {
  using enum ir::DType;
  const AttentionCross t5{
      .heads = 6, .kv_heads = 6, .head_size = 32, .v_head_size = 32, .scale = 0.3};
  const AttentionCross odd{
      .heads = 6, .kv_heads = 2, .head_size = 27, .v_head_size = 13, .scale = 0.2};
  const AttentionCross bart{
      .heads = 2, .kv_heads = 2, .head_size = 64, .v_head_size = 64, .scale = 0.125};
  const AttentionCross grouped{
      .heads = 10, .kv_heads = 2, .head_size = 128, .v_head_size = 80, .scale = 0.09};
  const AttentionCross wide{
      .heads = 2, .kv_heads = 1, .head_size = 131, .v_head_size = 259, .scale = 0.08};
  const AttentionCross large{
      .heads = 16, .kv_heads = 16, .head_size = 64, .v_head_size = 64, .scale = 0.125};
  return {
      make("generation: one row each", t5, {{1, 1}, {16, 1}, {17, 1}, {200, 1}}),
      make("prompts beside generated tokens", t5, {{70, 9}, {5, 1}, {64, 4}, {65, 3}}),
      make("rows that nobody owns, a sequence without rows", t5, {{33, 2}, {7, 0}, {9, 5}}, 2),
      make("grouped heads of sizes that no vector divides", odd, {{40, 7}, {3, 1}}, 1, 4),
      make("a row over keys around a tile", bart,
           {{1, 1}, {31, 1}, {32, 1}, {33, 1}, {63, 1}, {64, 1}, {65, 1}, {129, 1}}, 0, 64),
      make("rows around 4 and 16 queries", bart,
           {{65, 3}, {64, 4}, {66, 5}, {33, 15}, {31, 16}, {130, 17}, {32, 33}}, 1),
      make("a row over 1500, rows beside it", bart, {{1500, 1}, {1500, 17}}, 0, 64),
      make("5 heads of 128 for each of the keys'", grouped, {{70, 1}, {200, 4}, {9, 7}}, 1, 32),
      make("heads of 131, values of 259", wide, {{66, 2}, {300, 3}}, 1),
      make("contiguous", t5, {{70, 2}, {13, 1}}, 0, 0),
      make("bf16 cache", t5, {{70, 5}, {13, 1}}, 0, 8, {kBF16}),
      make("f16 cache", odd, {{70, 5}, {13, 1}}, 0, 8, {kF16}),
      make("bf16 cache, a row over 1500", bart, {{1500, 1}}, 0, 64, {kBF16}),
      make("f16 cache, 5 heads for each of the keys'", grouped, {{200, 3}}, 0, 64, {kF16}),
      make("bf16 activations", t5, {{70, 5}, {13, 1}}, 1, 8, {kBF16, kBF16}),
      make("f16 activations", t5, {{70, 5}, {13, 1}}, 0, 64, {kF16, kF16}),
      timed(make("BART large, 8 tokens over 512", large, std::vector<CrossSequence>(8, {512, 1}), 0,
                 64)),
      timed(make("Whisper medium, a token over 1500", large, {{1500, 1}}, 0, 64)),
  };
}

}  // namespace millrace::ops
