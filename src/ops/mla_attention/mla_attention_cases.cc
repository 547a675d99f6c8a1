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

/// Generated tokens behind `past(i)` others each, sequence i < count.
template <typename Past>
KvCaseSpec one_token_each(int count, const Past& past, int row_gap = 0) {
  KvCaseSpec spec{.sequences = {}, .row_gap = row_gap};
  for (int i = 0; i < count; ++i)
    spec.sequences.push_back({past(i), 1, kGeneration});
  return spec;
}

/// Tokens that see so many positions: around the edges of tiles, which are pieces up to 1,024 keys,
/// and where pieces become larger, behind 1,024, 2,048 and 8,192 keys.
KvCaseSpec edges() {
  constexpr std::array<int, 16> kKeys = {1,   63,   64,   65,   127,  128,  129,  191,
                                         257, 1024, 1025, 2048, 2049, 2304, 2305, 9000};
  KvCaseSpec spec = one_token_each(
      static_cast<int>(kKeys.size()), [&](int i) { return kKeys[static_cast<size_t>(i)] - 1; }, 1);
  spec.sequences.insert(spec.sequences.begin() + 3, {5, 0, kGeneration});
  return spec;
}

/// Generated tokens of 16 bits and heads by 16: the absorbed form on tensor cores.
std::vector<Case> generation_cases() {
  using enum ir::DType;
  // Longer than a piece, so that several tokens of a sequence see different numbers of pieces.
  const KvCaseSpec several{.sequences = {{0, 4, kGeneration},
                                         {126, 4, kGeneration},
                                         {700, 2, kGeneration},
                                         {40, 0, kGeneration},
                                         {62, 3, kGeneration},
                                         {2046, 5, kGeneration}},
                           .row_gap = 2};
  KvCaseSpec beams{.sequences = {{5, 9, kContext}, {0, 150, kContext}}, .row_gap = 1, .beams = 3};
  for (const int past : {21, 21, 21, 170, 170, 170})
    beams.sequences.push_back({past, 1, kGeneration});
  const auto uneven = [](int i) { return i * 37 % 211; };
  const auto one_is_long = [](int i) { return i == 17 ? 9000 : i * 53 % 400; };
  const KvCaseSpec three = one_token_each(3, [](int i) { return 300 * i + 130; });
  const KvCaseSpec many_tokens{
      .sequences = {{3, 100, kGeneration}, {0, 140, kGeneration}, {50, 60, kGeneration}}};
  return {
      narrow("bf16 tokens at edges", lite(16), edges(), kBF16, 64),
      narrow("f16 tokens at edges, blocks of 16", lite(16), edges(), kF16, 16),
      narrow("bf16 tokens at edges, 32 heads, contiguous", lite(32), edges(), kBF16, 0),
      narrow("bf16, one token of 301", lite(16), one_token_each(1, [](int) { return 300; }), kBF16,
             64),
      narrow("f16, three tokens, 32 heads, blocks of 4", lite(32), three, kF16, 4),
      narrow("bf16, three tokens, 128 heads", lite(128), three, kBF16, 32),
      narrow("bf16, 130 uneven sequences", lite(16), one_token_each(130, uneven, 1), kBF16, 16),
      narrow("f16, 130 uneven sequences, 32 heads", lite(32), one_token_each(130, uneven), kF16,
             64),
      // The class of the long one leaves room for the partial results of 31 rows.
      narrow("bf16, 40 sequences, one is long", lite(16), one_token_each(40, one_is_long), kBF16,
             64),
      narrow("f16, 40 sequences, one is long, blocks of 16", lite(16),
             one_token_each(40, one_is_long, 1), kF16, 16),
      // More than 256 rows, which one go has at most.
      narrow("bf16, 300 tokens of three sequences", lite(16), many_tokens, kBF16, 64),
      narrow("f16, 300 tokens of three sequences", lite(16), many_tokens, kF16, 32),
      narrow("bf16, several tokens", lite(16), several, kBF16, 64),
      narrow("f16, several tokens, contiguous", lite(32), several, kF16, 0),
      narrow("bf16 beams, 16 heads", lite(16), beams, kBF16, 64),
      narrow("f16 beams, 32 heads, blocks of 4", lite(32), beams, kF16, 4),
      narrow("bf16 prompts beside tokens, 16 heads", lite(16), prompts(), kBF16, 64),
      narrow("f16 prompts beside tokens, 16 heads, blocks of 16", lite(16), prompts(), kF16, 16),
      make("bf16 tokens, 16 heads, f16 cache", lite(16), stored_as(several, kF16, 16), kBF16),
  };
}

std::vector<Case> timed_cases() {
  using enum ir::DType;
  const auto tokens = [](int count, int length) {
    return stored_as(one_token_each(count, [=](int) { return length - 1; }), kBF16, 64);
  };
  const auto step = [](int past, int rows, RequestType type) {
    return stored_as({.sequences = {{past, rows, type}}}, kBF16, 64);
  };
  std::vector<Case> cases = {
      make("one token of 700", lite(16), step(700, 1, kGeneration)),
      make("a prompt of 150", lite(16), step(0, 150, kContext)),
      make("bf16, one token of 700", lite(16), step(700, 1, kGeneration), kBF16),
      make("bf16, 16 x 700", lite(16), tokens(16, 700), kBF16),
      make("bf16, 64 x 4096", lite(16), tokens(64, 4096), kBF16),
      make("bf16, 1 x 32768", lite(16), tokens(1, 32768), kBF16),
      make("bf16, one token of 700, 128 heads", lite(128), tokens(1, 700), kBF16),
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
  for (std::vector<Case>& more :
       std::to_array({prompt_cases(), generation_cases(), timed_cases()})) {
    cases.insert(cases.end(), std::make_move_iterator(more.begin()),
                 std::make_move_iterator(more.end()));
  }
  return cases;
}

}  // namespace millrace::ops
