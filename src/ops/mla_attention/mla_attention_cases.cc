#include <array>
#include <cmath>
#include <iterator>

#include "ops/harness/cases.h"
#include "ops/harness/kv_spec.h"
#include "ops/mla_attention/mla_attention.h"

namespace millrace::ops {
namespace {

constexpr RequestType kContext = RequestType::kContext, kGeneration = RequestType::kGeneration;

Case make(std::string name, MlaAttention a, KvCaseSpec spec, ir::DType q = ir::DType::kF32,
          ir::DType weight = ir::DType::kBF16) {
  spec = of_latents(std::move(spec), a.latent_size, a.rope_size);
  a.beams = spec.beams;
  const int64_t rows = KvCase(spec).rows();
  Case c{.name = std::move(name), .attrs = to_attrs(a)};
  c.inputs = {normal(q, {rows, int64_t{a.heads} * (a.nope_size + a.rope_size)}, 2)};
  for (InputSpec& input : kv_inputs(spec))
    c.inputs.push_back(std::move(input));
  // Keys and values of about 1.
  c.inputs.push_back(normal(weight, {int64_t{a.heads} * (a.nope_size + a.v_size), a.latent_size},
                            1 / std::sqrt(static_cast<double>(a.latent_size))));
  if (a.beams > 0) {
    for (InputSpec& input : beam_inputs(spec))
      c.inputs.push_back(std::move(input));
  }
  // As for attention: logits of up to some tens, summed in float.
  c.tolerance = q == ir::DType::kF32 ? 5e-6 : 0;
  return c;
}

MlaAttention lite(int heads) {
  return {.heads = heads,
          .nope_size = 128,
          .rope_size = 64,
          .latent_size = 512,
          .v_size = 128,
          .scale = 1 / std::sqrt(192.0)};
}

/// 16 bits throughout, as tensor cores take them.
Case narrow(std::string name, const MlaAttention& a, const KvCaseSpec& spec, ir::DType type,
            int tokens_per_block) {
  return make(std::move(name), a, stored_as(spec, type, tokens_per_block), type, type);
}

/// Prompts and chunks that end around the edges of tiles of 128 keys, beside generation.
KvCaseSpec prompts() {
  return {.sequences = {{0, 127, kContext},
                        {0, 128, kContext},
                        {0, 129, kContext},
                        {9, 0, kContext},
                        {100, 200, kContext},
                        {250, 6, kContext},
                        {0, 1, kContext},
                        {127, 1, kContext},
                        {64, 64, kContext},
                        {16, 1, kGeneration},
                        {130, 1, kGeneration},
                        {47, 2, kGeneration}},
          .row_gap = 3};
}

/// Prompts of heads of 128 + 64 and values of 128: the expanded form on tensor cores.
std::vector<Case> prompt_cases() {
  using enum ir::DType;
  MlaAttention many = lite(24);  // more units than an H200 has multiprocessors
  many.latent_size = 64;
  KvCaseSpec beams{.sequences = {{5, 9, kContext}, {0, 150, kContext}}, .row_gap = 1, .beams = 3};
  for (const int past : {21, 21, 21, 170, 170, 170})
    beams.sequences.push_back({past, 1, kGeneration});
  return {
      narrow("bf16 prompts", lite(4), prompts(), kBF16, 64),
      narrow("bf16 prompts, blocks of 16", lite(3), prompts(), kBF16, 16),
      narrow("bf16 prompts, blocks of 4", lite(2), prompts(), kBF16, 4),
      narrow("f16 prompts, blocks of 32", lite(5), prompts(), kF16, 32),
      narrow("f16 prompts, contiguous", lite(2), prompts(), kF16, 0),
      narrow("bf16 prompts, 24 heads, a latent of 64", many, prompts(), kBF16, 64),
      narrow("f16 prompts, 24 heads, a latent of 64", many, prompts(), kF16, 64),
      narrow("bf16 prompts beside beams", lite(4), beams, kBF16, 64),
      make("bf16 prompts, f16 cache", lite(2), stored_as(prompts(), kF16, 16), kBF16),
      // The workspace of mla_attention_expanded_cuda holds 64 heads of the first sequence at a
      // time, and all of the second one.
      narrow("bf16, 128 heads behind 4600 tokens", lite(128),
             {.sequences = {{4600, 24, kContext}, {700, 16, kContext}}}, kBF16, 64),
      // It does not hold one head.
      narrow("bf16, a chunk behind 181500 tokens", lite(1), {.sequences = {{181500, 3, kContext}}},
             kBF16, 64),
  };
}

std::vector<Case> timed_cases() {
  using enum ir::DType;
  const auto step = [](int past, int rows, RequestType type) {
    return stored_as({.sequences = {{past, rows, type}}}, kBF16, 64);
  };
  std::vector<Case> cases = {
      make("one token of 700", lite(16), step(700, 1, kGeneration)),
      make("a prompt of 150", lite(16), step(0, 150, kContext)),
      make("bf16, one token of 700", lite(16), step(700, 1, kGeneration), kBF16),
      make("bf16, prompt of 2048 of deepseek v2 lite", lite(16), step(0, 2048, kContext), kBF16),
  };
  for (Case& c : cases)
    c.benchmark = true;
  return cases;
}

}  // namespace

std::vector<Case> mla_attention_cases() {
  using enum ir::DType;
  const KvCaseSpec mixed{.sequences = {{0, 21, kContext},
                                       {7, 5, kContext},
                                       {60, 70, kContext},
                                       {3, 0, kContext},
                                       {16, 1, kGeneration},
                                       {127, 1, kGeneration},
                                       {47, 2, kGeneration}},
                         .row_gap = 2};
  const MlaAttention odd{
      .heads = 3, .nope_size = 13, .rope_size = 6, .latent_size = 37, .v_size = 11, .scale = 0.25};
  MlaAttention even = odd;
  even.nope_size = 24;
  even.latent_size = 64;
  even.v_size = 40;
  KvCaseSpec beams{.sequences = {{5, 9, kContext}}, .row_gap = 1, .beams = 3};
  for (const int past : {21, 21, 21, 70, 70, 70})
    beams.sequences.push_back({past, 1, kGeneration});
  std::vector<Case> cases = {
      make("sizes that no vector divides", odd, mixed),
      make("f32 weight", odd, mixed, kF32, kF32),
      make("f16 weight, contiguous", odd, stored_as(mixed, kF32, 0), kF32, kF16),
      make("bf16 cache", even, stored_as(mixed, kBF16, 4)),
      make("f16 cache", even, stored_as(mixed, kF16, 64)),
      make("bf16 activations", even, stored_as(mixed, kBF16, 16), kBF16),
      make("f16 activations, odd sizes", odd, stored_as(mixed, kF16, 16), kF16, kF16),
      make("deepseek v2 lite", lite(4), stored_as(mixed, kBF16, 32)),
      make("bf16, deepseek v2 lite", lite(5), stored_as(mixed, kBF16, 32), kBF16),
      make("beams behind a prompt", odd, stored_as(beams, kF32, 4)),
      make("beams, 16-bit", lite(4), stored_as(beams, kBF16, 64), kBF16),
  };
  for (std::vector<Case>& more : std::to_array({prompt_cases(), timed_cases()})) {
    cases.insert(cases.end(), std::make_move_iterator(more.begin()),
                 std::make_move_iterator(more.end()));
  }
  return cases;
}

}  // namespace millrace::ops
