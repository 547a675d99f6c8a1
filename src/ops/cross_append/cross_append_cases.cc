#include "ops/cross_append/cross_append.h"
#include "ops/harness/cases.h"
#include "ops/harness/kv_case.h"

namespace millrace::ops {
namespace {

Case make(std::string name, const CrossAppend& a, const std::vector<int>& lengths, int gap,
          int tokens_per_block, ir::DType stored = ir::DType::kF32,
          ir::DType dtype = ir::DType::kF32) {
  KvCaseSpec spec{.sequences = {},
                  .kv_heads = a.kv_heads,
                  .k_size = a.head_size,
                  .v_size = a.v_head_size,
                  .dtype = stored,
                  .tokens_per_block = tokens_per_block,
                  .row_gap = gap,
                  .has_new_tokens = false};
  for (const int length : lengths)
    spec.sequences.push_back({.past = 0, .rows = length});
  const int64_t rows = KvCase(spec).rows();
  const std::vector<InputSpec> kv = kv_inputs(spec);
  Case c{.name = std::move(name), .attrs = to_attrs(a)};
  c.inputs = {normal(dtype, {rows, int64_t{a.kv_heads} * a.head_size}),
              normal(dtype, {rows, int64_t{a.kv_heads} * a.v_head_size}),
              kv[kQueryStart],
              kv[kQueryLength],
              kv[kBlockOffsets],
              kv[kNumSequenceInputs]};
  return c;
}

}  // namespace

std::vector<Case> cross_append_cases() {
  using enum ir::DType;
  const CrossAppend t5{.kv_heads = 6, .head_size = 32, .v_head_size = 32};
  const CrossAppend odd{.kv_heads = 3, .head_size = 27, .v_head_size = 13};
  Case timed =
      make("Whisper medium, 1500 frames", {.kv_heads = 16, .head_size = 64, .v_head_size = 64},
           {1500}, 0, 64, kF16, kF16);
  timed.benchmark = true;
  return {
      make("ragged sequences", t5, {1, 16, 17, 70}, 0, 16),
      make("rows that nobody owns, a sequence without rows", t5, {5, 0, 9}, 2, 8),
      make("odd head sizes", odd, {11, 40}, 1, 4),
      make("contiguous", t5, {7, 30}, 0, 0),
      make("bf16 cache", odd, {7, 30}, 0, 8, kBF16),
      make("f16 cache from f16", t5, {7, 30}, 1, 8, kF16, kF16),
      make("bf16 cache from bf16", t5, {7, 30}, 1, 64, kBF16, kBF16),
      timed,
  };
}

}  // namespace millrace::ops
