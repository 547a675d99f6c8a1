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

KvCaseSpec stored_as(KvCaseSpec spec, ir::DType dtype, int tokens_per_block) {
  spec.dtype = dtype;
  spec.tokens_per_block = tokens_per_block;
  return spec;
}

/// `count` sequences of one row each, behind `past` tokens.
KvCaseSpec generation_step(int count, int past) {
  KvCaseSpec spec = stored_as({}, ir::DType::kBF16, 64);
  spec.sequences.assign(static_cast<size_t>(count), {past, 1, kGeneration});
  return spec;
}

Case timed(Case c) {
  c.benchmark = true;
  return c;
}

/// Heads for kernels that move packs of elements: each lane of a head has its place.
std::vector<Case> pack_cases() {
  using enum ir::DType;
  const RopeAppend of_128{.heads = 4,
                          .kv_heads = 2,
                          .head_size = 128,
                          .v_head_size = 128,
                          .rotary_dim = 128,
                          .packed = true};
  RopeAppend phi = of_128, neighbours = of_128, plain = of_128, wide = of_128, wider = of_128,
             many = of_128, apart = of_128;
  phi.head_size = phi.v_head_size = 72;  // an odd number of packs behind those that are rotated
  phi.rotary_dim = 32;
  phi.qk_norm = true;
  neighbours.interleaved = true;
  neighbours.rotary_dim = 64;
  plain.rotary_dim = 0;
  wide.head_size = wide.v_head_size = wide.rotary_dim = 256;
  wide.qk_norm = true;
  wider.head_size = wider.v_head_size = wider.rotary_dim = 272;
  wider.qk_norm = true;
  many.heads = 60;
  apart.packed = false;
  apart.v_head_size = 64;
  return {
      make("a part of the head, packs without a partner", phi, stored_as(mixed_step(), kBF16, 16),
           kBF16),
      make("the same, int8 cache", phi, stored_as(mixed_step(), kI8, 16), kF16),
      make("neighbours in a part of the head", neighbours, stored_as(mixed_step(), kBF16, 16),
           kBF16),
      make("no rotation, fp8 cache", plain, stored_as(mixed_step(), kF8E4M3, 16), kBF16),
      make("heads that take a warp, f32", wide, mixed_step()),
      make("heads that take more than a warp, f32", wider, mixed_step()),
      make("smaller heads of V", apart, stored_as(mixed_step(), kBF16, 16), kBF16),
      make("more heads than a block takes at once", many,
           {.sequences = {{5, 1100, kContext}}, .dtype = kBF16, .tokens_per_block = 64}, kBF16),
      make("more sequences than threads", of_128, generation_step(300, 3), kBF16),
  };
}

/// Llama 3.1 8B.
std::vector<Case> timed_cases_of_8b() {
  using enum ir::DType;
  const RopeAppend eight_b{.heads = 32,
                           .kv_heads = 8,
                           .head_size = 128,
                           .v_head_size = 128,
                           .rotary_dim = 128,
                           .packed = true};
  RopeAppend qwen3 = eight_b;
  qwen3.qk_norm = true;
  const KvCaseSpec prompts{
      .sequences = {4, {0, 2048, kContext}}, .dtype = kBF16, .tokens_per_block = 64};
  return {
      timed(make("1 row of 8B", eight_b, generation_step(1, 100), kBF16)),
      timed(make("128 rows of 8B", eight_b, generation_step(128, 100), kBF16)),
      timed(make("128 rows of 8B, int8 cache", eight_b,
                 stored_as(generation_step(128, 100), kI8, 64), kBF16)),
      timed(make("8192 rows of 8B", eight_b, prompts, kBF16)),
      timed(make("8192 rows of 8B, fp8 cache", eight_b, stored_as(prompts, kF8E4M3, 64), kBF16)),
      timed(make("8192 rows of 8B, heads are normalised", qwen3, prompts, kBF16)),
  };
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
  std::vector<Case> cases = {
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
  for (const std::vector<Case>& more : {pack_cases(), timed_cases_of_8b()})
    cases.insert(cases.end(), more.begin(), more.end());
  return cases;
}

}  // namespace millrace::ops
