#include <cmath>

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
      make("one token of 700", lite(16),
           stored_as({.sequences = {{700, 1, kGeneration}}}, kBF16, 64)),
      make("a prompt of 150", lite(16), stored_as({.sequences = {{0, 150, kContext}}}, kBF16, 64)),
      make("bf16, one token of 700", lite(16),
           stored_as({.sequences = {{700, 1, kGeneration}}}, kBF16, 64), kBF16),
  };
  for (size_t i = cases.size() - 3; i < cases.size(); ++i)
    cases[i].benchmark = true;
  return cases;
}

}  // namespace millrace::ops
