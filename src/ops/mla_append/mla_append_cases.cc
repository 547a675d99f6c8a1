#include "ops/harness/cases.h"
#include "ops/harness/kv_spec.h"
#include "ops/mla_append/mla_append.h"

namespace millrace::ops {
namespace {

Case make(std::string name, const MlaAppend& a, KvCaseSpec spec,
          ir::DType dtype = ir::DType::kF32) {
  spec = of_latents(std::move(spec), a.latent_size, a.rope_size);
  spec.has_new_tokens = false;
  const int64_t rows = KvCase(spec).rows();
  Case c{.name = std::move(name), .attrs = to_attrs(a)};
  c.inputs = {normal(dtype, {rows, int64_t{a.heads} * (a.nope_size + a.rope_size)}),
              normal(dtype, {rows, spec.k_size})};
  for (InputSpec& input : kv_inputs(spec))
    c.inputs.push_back(std::move(input));
  c.inputs.push_back(uniform(ir::DType::kF32, {rows, a.rope_size}, -1, 1));
  c.inputs.push_back(normal(dtype, {a.latent_size}, 0.3, 1));
  return c;
}

}  // namespace

std::vector<Case> mla_append_cases() {
  using enum ir::DType;
  const MlaAppend lite{
      .heads = 16, .nope_size = 128, .rope_size = 64, .latent_size = 512, .interleaved = true};
  const MlaAppend odd{.heads = 3, .nope_size = 13, .rope_size = 6, .latent_size = 37};
  MlaAppend odd_pairs = odd;
  odd_pairs.interleaved = true;
  std::vector<Case> cases = {
      make("deepseek v2 lite", lite, append_step()),
      make("sizes that no vector divides, halves", odd, append_step()),
      make("sizes that no vector divides, pairs", odd_pairs, append_step()),
      make("bf16 cache", lite, stored_as(append_step(), kBF16, 4)),
      make("f16 cache, contiguous", odd_pairs, stored_as(append_step(), kF16, 0)),
      make("bf16 activations", lite, stored_as(append_step(), kBF16, 16), kBF16),
      make("f16 activations", odd, stored_as(append_step(), kF16, 16), kF16),
      make(
          "a prompt of 512", lite,
          {.sequences = {{0, 512, RequestType::kContext}}, .dtype = kBF16, .tokens_per_block = 64}),
      make("one token of deepseek v2 lite", lite,
           {.sequences = {{700, 1, RequestType::kGeneration}},
            .dtype = kBF16,
            .tokens_per_block = 64},
           kBF16),
  };
  for (size_t i = cases.size() - 2; i < cases.size(); ++i)
    cases[i].benchmark = true;
  return cases;
}

}  // namespace millrace::ops
