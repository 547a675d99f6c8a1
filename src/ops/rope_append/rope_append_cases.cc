#include "ops/harness/cases.h"
#include "ops/harness/kv_case.h"
#include "ops/rope_append/rope_append.h"

namespace millrace::ops {
namespace {

constexpr RequestType kContext = RequestType::kContext, kGeneration = RequestType::kGeneration;

/// Ragged sequences of both phases, with rows between them that none owns.
KvCaseSpec mixed_step() {
  return {.sequences = {{0, 21, kContext},
                        {7, 5, kContext},
                        {3, 0, kContext},
                        {16, 1, kGeneration},
                        {47, 2, kGeneration}},
          .row_gap = 2};
}

Case make(std::string name, const RopeAppend& a, KvCaseSpec spec,
          ir::DType dtype = ir::DType::kF32) {
  spec.kv_heads = a.kv_heads;
  spec.k_size = a.head_size;
  spec.v_size = a.v_head_size;
  spec.has_new_tokens = false;
  const int64_t rows = KvCase(spec).rows();
  const int64_t q = int64_t{a.heads} * a.head_size, k = int64_t{a.kv_heads} * a.head_size;
  const int64_t v = int64_t{a.kv_heads} * a.v_head_size;
  Case c{.name = std::move(name), .attrs = to_attrs(a)};
  if (a.packed) {
    c.inputs = {normal(dtype, {rows, q + k + v})};
  } else {
    c.inputs = {normal(dtype, {rows, q}), normal(dtype, {rows, k}), normal(dtype, {rows, v})};
  }
  for (InputSpec& input : kv_inputs(spec))
    c.inputs.push_back(std::move(input));
  if (a.rotary_dim > 0) c.inputs.push_back(uniform(ir::DType::kF32, {rows, a.rotary_dim}, -1, 1));
  if (a.qk_norm) {
    c.inputs.push_back(normal(dtype, {a.head_size}, 0.3, 1));
    c.inputs.push_back(normal(dtype, {a.head_size}, 0.3, 1));
  }
  return c;
}

Case timed(Case c) {
  c.benchmark = true;
  return c;
}

KvCaseSpec stored_as(KvCaseSpec spec, ir::DType dtype, int tokens_per_block) {
  spec.dtype = dtype;
  spec.tokens_per_block = tokens_per_block;
  return spec;
}

}  // namespace

std::vector<Case> rope_append_cases() {
  using enum ir::DType;
  const RopeAppend llama{
      .heads = 6, .kv_heads = 2, .head_size = 64, .v_head_size = 64, .rotary_dim = 64};
  RopeAppend packed = llama, qwen3 = llama, gemma3 = llama, gptj = llama, partial = llama,
             gpt2 = llama;
  packed.packed = true;
  qwen3.qk_norm = qwen3.packed = true;
  gemma3.qk_norm = true;
  gemma3.qk_norm_offset = 1;
  gptj.interleaved = gptj.packed = true;
  partial.rotary_dim = 20;
  gpt2.rotary_dim = 0;
  RopeAppend prompts = packed, generated = packed;
  prompts.phase = "context";
  generated.phase = "generation";
  RopeAppend odd{.heads = 3, .kv_heads = 1, .head_size = 27, .v_head_size = 13, .rotary_dim = 26};
  RopeAppend odd_pairs = odd;
  odd_pairs.interleaved = odd_pairs.packed = odd_pairs.qk_norm = true;
  const RopeAppend one_b{.heads = 32,
                         .kv_heads = 8,
                         .head_size = 64,
                         .v_head_size = 64,
                         .rotary_dim = 64,
                         .packed = true};
  return {
      make("llama, Q, K and V apart", llama, mixed_step()),
      make("llama, packed", packed, mixed_step()),
      make("prompts only", prompts, mixed_step()),
      make("prompts only, and there are none", prompts, {.sequences = {{16, 1, kGeneration}}}),
      make("generated tokens only", generated, mixed_step()),
      make("generated tokens only, bf16", generated, stored_as(mixed_step(), kBF16, 16), kBF16),
      make("qwen3: heads are normalised", qwen3, mixed_step()),
      make("gemma3: norms with an offset", gemma3, mixed_step()),
      make("gemma3, bf16", gemma3, stored_as(mixed_step(), kBF16, 16), kBF16),
      make("gpt-j: interleaved pairs", gptj, mixed_step()),
      make("a part of the head is rotated", partial, mixed_step()),
      make("gpt2: no rotation", gpt2, mixed_step()),
      make("head sizes that no vector divides", odd, mixed_step()),
      make("the same interleaved", odd_pairs, mixed_step()),
      make("bf16 cache", packed, stored_as(mixed_step(), kBF16, 4)),
      make("f16 cache, contiguous", qwen3, stored_as(mixed_step(), kF16, 0)),
      make("int8 cache", packed, stored_as(mixed_step(), kI8, 4)),
      make("int8 cache, odd heads, contiguous", odd, stored_as(mixed_step(), kI8, 0)),
      make("int8 cache, bf16 activations", gptj, stored_as(mixed_step(), kI8, 16), kBF16),
      make("fp8 cache", packed, stored_as(mixed_step(), kF8E4M3, 16)),
      make("fp8 cache, odd heads, f16 activations", odd, stored_as(mixed_step(), kF8E4M3, 4), kF16),
      make("bf16 activations", qwen3, stored_as(mixed_step(), kBF16, 16), kBF16),
      make("f16 activations", gptj, stored_as(mixed_step(), kF16, 16), kF16),
      timed(make("one token of 1B", one_b,
                 {.sequences = {{1000, 1, kGeneration}}, .dtype = kBF16, .tokens_per_block = 64})),
      timed(make("prompt of 512 of 1B", one_b,
                 {.sequences = {{0, 512, kContext}}, .dtype = kBF16, .tokens_per_block = 64})),
  };
}

}  // namespace millrace::ops
