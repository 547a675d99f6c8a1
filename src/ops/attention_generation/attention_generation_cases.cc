#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <iterator>
#include <utility>

#include "ops/attention_generation/attention_generation.h"
#include "ops/common/generation_division.h"
#include "ops/harness/attention_case.h"
#include "ops/harness/kv_spec.h"
#include "ops/op.h"

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

/// How the fused form rotates.
struct Rope {
  int rotary_dim = 0;
  bool interleaved = false;
  bool packed = true;
  bool planned = true;
};

/// The plan that attention_plan makes of a step.
InputSpec plan_input(const AttentionShape& shape, const KvCaseSpec& spec) {
  KvCase step(spec);
  const Op& op = *find_op("attention_plan");
  ir::Attrs attrs;
  attrs.set("heads", int64_t{shape.heads});
  attrs.set("kv_heads", int64_t{shape.kv_heads});
  attrs.set("head_size", int64_t{shape.head_size});
  attrs.set("window", int64_t{shape.window});
  attrs.set("sink_tokens", int64_t{shape.sink_tokens});
  const auto attributes = op.parse_attrs(attrs);
  const int64_t items = generation::plan_items(shape.head_size), words = generation::kItemWords;
  std::vector<int32_t> plan(static_cast<size_t>(items * words));
  const auto vector = [](std::vector<int32_t>& values) {
    const std::array<int64_t, 1> dims = {static_cast<int64_t>(values.size())};
    return Tensor(values.data(), ir::DType::kI32, dims);
  };
  std::vector<int32_t> rows(static_cast<size_t>(step.rows()));
  const std::array<Tensor, 5> in = {vector(rows), vector(step.sequence_length),
                                    vector(step.query_start), vector(step.query_length),
                                    vector(step.request_type)};
  const std::array<int64_t, 2> dims = {items, words};
  const std::array<Tensor, 1> out = {Tensor(plan.data(), ir::DType::kI32, dims)};
  op.tactics.back().run({.in = in, .out = out, .attributes = attributes.get()});
  return ints({items, words}, std::move(plan));
}

/// A case whose op rotates and appends; of this step nothing is in the cache.
Case appends(std::string name, const AttentionShape& shape, KvCaseSpec spec, ir::DType q,
             const Rope& rope) {
  spec.has_new_tokens = false;
  const KvCaseSpec sized = with_heads(spec, shape);
  Case c = make(std::move(name), shape, spec, q);
  const int64_t rows = c.inputs[0].shape[0];
  const int64_t q_size = int64_t{shape.heads} * shape.head_size;
  const int64_t k_size = int64_t{shape.kv_heads} * shape.head_size;
  const int64_t v_size = int64_t{shape.kv_heads} * shape.v_head_size;
  c.inputs[0] = normal(q, {rows, rope.packed ? q_size + k_size + v_size : q_size});
  std::vector<InputSpec> more;
  if (!rope.packed) more = {normal(q, {rows, k_size}), normal(q, {rows, v_size})};
  if (rope.rotary_dim > 0) {
    more.push_back(uniform(ir::DType::kF32, {rows, rope.rotary_dim}, -1, 1));
  }
  if (rope.planned) more.push_back(plan_input(shape, sized));
  constexpr int kBehindOut = 10;
  c.inputs.insert(c.inputs.begin() + kBehindOut, std::make_move_iterator(more.begin()),
                  std::make_move_iterator(more.end()));
  c.attrs.set("planned", rope.planned);
  c.attrs.set("append", true);
  c.attrs.set("rotary_dim", int64_t{rope.rotary_dim});
  c.attrs.set("interleaved", rope.interleaved);
  c.attrs.set("packed", rope.packed);
  return c;
}

/// Steps of several tokens a sequence, across the edges of tiles and blocks.
KvCaseSpec several(int tokens) {
  KvCaseSpec spec{.sequences = {}, .row_gap = 1};
  for (const int past : {0, 13, 15, 16, 60, 62, 63, 64, 500})
    spec.sequences.push_back({past, tokens, kGeneration});
  return spec;
}

/// The same, where blocks share the keys of a sequence.
KvCaseSpec several_pieces(int tokens) {
  KvCaseSpec spec{.sequences = {}, .row_gap = 1};
  for (const int past : {700, 1500, 2990})
    spec.sequences.push_back({past, tokens, kGeneration});
  return spec;
}

/// More units than blocks run at once, of 8 KV heads; of 140 sequences, more than four for each.
/// Where one sequence is far longer than the others, its keys are shared.
KvCaseSpec many(bool one_is_long, int sequences = 40, int tokens = 1) {
  KvCaseSpec spec{.sequences = {}, .row_gap = 1};
  for (int i = 0; i < sequences; ++i)
    spec.sequences.push_back({i * 37 % 150, i == 20 ? 0 : tokens, kGeneration});
  if (one_is_long) spec.sequences[7].past = 700;
  return spec;
}

/// The same, and sequences of several pieces that are units of their own.
KvCaseSpec many_pieces(int tokens = 1) {
  KvCaseSpec spec{.sequences = {}};
  for (int i = 0; i < 40; ++i)
    spec.sequences.push_back({690 + i, tokens, kGeneration});
  return spec;
}

/// Some sequences have one new token, others two or four.
KvCaseSpec many_mixed() {
  KvCaseSpec spec = many(false);
  for (size_t i = 0; i < spec.sequences.size(); ++i)
    spec.sequences[i].rows *= 1 << i % 3;
  return spec;
}

/// One token of each sequence, in blocks that stay.
std::vector<Case> many_cases() {
  using enum ir::DType;
  const AttentionShape with_sink_logits{.heads = 16,
                                        .kv_heads = 8,
                                        .head_size = 64,
                                        .v_head_size = 64,
                                        .scale = 0.125F,
                                        .sink_logits = true};
  return {
      appends("many, heads of 64", kOneBillionHeads, stored_as(many(false), kF16, 16), kF16,
              {.rotary_dim = 64, .packed = false}),
      appends("many, eight heads share one, contiguous", {16, 2, 128, 128, 0.0884F, 0, 0},
              stored_as(many(false), kBF16, 0), kBF16, {.rotary_dim = 128}),
      appends("many, sink logits", with_sink_logits, stored_as(many(false), kBF16, 32), kBF16,
              {.rotary_dim = 64}),
      appends("many, several pieces", {8, 8, 64, 64, 0.125F, 0, 0},
              stored_as(many_pieces(), kBF16, 64), kBF16, {.rotary_dim = 64}),
      appends("many, several pieces, heads of 128", {16, 8, 128, 128, 0.0884F, 0, 0},
              stored_as(many_pieces(), kF16, 64), kF16, {.rotary_dim = 128}),
  };
}

/// More than 8 query rows of a KV head, in blocks that stay.
std::vector<Case> many_wide_cases() {
  using enum ir::DType;
  const AttentionShape with_sink_logits{.heads = 16,
                                        .kv_heads = 2,
                                        .head_size = 128,
                                        .v_head_size = 128,
                                        .scale = 0.0884F,
                                        .sink_logits = true};
  return {
      appends("many, four tokens", kEightBillionHeads, stored_as(many(false, 70, 4), kBF16, 64),
              kBF16, {.rotary_dim = 128}),
      appends("many, four tokens, one is long", kEightBillionHeads,
              stored_as(many(true, 40, 4), kF16, 64), kF16, {.rotary_dim = 128}),
      appends("many, four tokens, several pieces", kEightBillionHeads,
              stored_as(many_pieces(4), kBF16, 64), kBF16, {.rotary_dim = 128}),
      appends("many, two tokens, heads of 64", kOneBillionHeads,
              stored_as(many(false, 70, 2), kF16, 16), kF16, {.rotary_dim = 64, .packed = false}),
      appends("many, four tokens, one is long, heads of 64", kOneBillionHeads,
              stored_as(many(true, 40, 4), kBF16, 16), kBF16, {.rotary_dim = 64}),
      appends("many, four tokens, several pieces, heads of 64", kOneBillionHeads,
              stored_as(many_pieces(4), kF16, 64), kF16, {.rotary_dim = 64}),
      appends("many, one, two and four tokens", kEightBillionHeads,
              stored_as(many_mixed(), kBF16, 64), kBF16, {.rotary_dim = 128}),
      appends("many, 20 tokens, several pieces", {8, 2, 128, 128, 0.0884F, 0, 0},
              stored_as(several_pieces(20), kBF16, 16), kBF16, {.rotary_dim = 128}),
      appends("many, 16 heads share one", {32, 2, 64, 64, 0.125F, 0, 0},
              stored_as(many(false), kBF16, 64), kBF16, {.rotary_dim = 64}),
      appends("many, 16 heads share one, mixed step", {16, 1, 128, 128, 0.0884F, 0, 0},
              stored_as(mixed_step(), kF16, 16), kF16, {.rotary_dim = 128}),
      appends("many, 20 heads share one", {20, 1, 128, 128, 0.0884F, 0, 0},
              stored_as(many(true), kBF16, 64), kBF16, {.rotary_dim = 128}),
      appends("many, three tokens, sink logits, contiguous", with_sink_logits,
              stored_as(several(3), kBF16, 0), kBF16, {.rotary_dim = 128}),
  };
}

/// The same as many_cases(), of caches of 8 bits.
std::vector<Case> many_eight_bit_cases() {
  using enum ir::DType;
  return {
      appends("many, int8", kEightBillionHeads, stored_as(many(false), kI8, 64), kBF16,
              {.rotary_dim = 128}),
      appends("many, int8, one is long", kEightBillionHeads, stored_as(many(true), kI8, 64), kBF16,
              {.rotary_dim = 128}),
      appends("many, int8, heads of 64", kOneBillionHeads, stored_as(many(false), kI8, 16), kF16,
              {.rotary_dim = 64, .packed = false}),
      appends("many, int8, eight heads share one, contiguous", {16, 2, 128, 128, 0.0884F, 0, 0},
              stored_as(many(false), kI8, 0), kF16, {.rotary_dim = 128}),
      appends("many, int8, several pieces", {16, 8, 128, 128, 0.0884F, 0, 0},
              stored_as(many_pieces(), kI8, 16), kF16, {.rotary_dim = 128}),
      appends("many, int8, several pieces, heads of 64", {8, 8, 64, 64, 0.125F, 0, 0},
              stored_as(many_pieces(), kI8, 64), kBF16, {.rotary_dim = 64}),
      appends("many, fp8", kEightBillionHeads, stored_as(many(false), kF8E4M3, 16), kF16,
              {.rotary_dim = 128}),
      appends("many, fp8, a head each", {5, 5, 128, 128, 0.0884F, 0, 0},
              stored_as(many(false), kF8E4M3, 64), kBF16, {.rotary_dim = 128, .packed = false}),
      appends("many, fp8, heads of 64, contiguous", kOneBillionHeads,
              stored_as(many(false), kF8E4M3, 0), kBF16, {.rotary_dim = 64}),
      appends("many, fp8, one is long", kEightBillionHeads, stored_as(many(true), kF8E4M3, 64),
              kF16, {.rotary_dim = 128}),
      appends("many, fp8, several pieces", {16, 8, 128, 128, 0.0884F, 0, 0},
              stored_as(many_pieces(), kF8E4M3, 64), kBF16, {.rotary_dim = 128}),
  };
}

std::vector<Case> several_tokens_cases() {
  using enum ir::DType;
  return {
      appends("appends, 16-bit, two tokens", kEightBillionHeads, stored_as(several(2), kBF16, 64),
              kBF16, {.rotary_dim = 128}),
      appends("appends, 16-bit, four tokens", kEightBillionHeads, stored_as(several(4), kBF16, 16),
              kBF16, {.rotary_dim = 128}),
      appends("appends, 16-bit, four tokens, several pieces", kEightBillionHeads,
              stored_as(several_pieces(4), kBF16, 64), kBF16, {.rotary_dim = 128}),
      appends("appends, int8, three tokens, several pieces", kOneBillionHeads,
              stored_as(several_pieces(3), kI8, 16), kF16, {.rotary_dim = 64}),
      appends("appends, 16-bit, 40 tokens", kOneBillionHeads, stored_as(several(40), kF16, 16),
              kF16, {.rotary_dim = 64}),
  };
}

std::vector<Case> append_cases() {
  using enum ir::DType;
  const AttentionShape windowed{4, 2, 128, 128, 0.0884F, 64, 0};
  const AttentionShape with_sinks{4, 2, 64, 64, 0.125F, 300, 20};
  return {
      appends("appends", kSmallHeads, mixed_step(), kF32, {.rotary_dim = 16, .planned = false}),
      appends("appends, Q, K and V apart, a part of the head", kSmallHeads, mixed_step(), kF32,
              {.rotary_dim = 12, .packed = false, .planned = false}),
      appends("appends, neighbours, sink logits", kSinkLogitHeads, mixed_step(), kF32,
              {.rotary_dim = 16, .interleaved = true, .planned = false}),
      appends("appends, no rotation", kSmallHeads, mixed_step(), kF32, {.planned = false}),
      appends("appends, V smaller than K", {4, 2, 192, 128, 0.0722F, 0, 0},
              stored_as(mixed_step(), kBF16, 64), kBF16, {.rotary_dim = 64, .planned = false}),
      appends("appends, 16-bit", kEightBillionHeads, stored_as(mixed_step(), kBF16, 64), kBF16,
              {.rotary_dim = 128}),
      appends("appends, 16-bit, no plan", kEightBillionHeads, stored_as(mixed_step(), kBF16, 64),
              kBF16, {.rotary_dim = 128, .planned = false}),
      appends("appends, 16-bit, edges", kEightBillionHeads, stored_as(edges(), kBF16, 64), kBF16,
              {.rotary_dim = 128}),
      appends("appends, 16-bit, many sequences", kEightBillionHeads,
              stored_as(many(false, 140), kBF16, 64), kBF16, {.rotary_dim = 128}),
      appends("appends, 16-bit, many sequences, one is long", kEightBillionHeads,
              stored_as(many(true), kBF16, 64), kBF16, {.rotary_dim = 128}),
      appends("appends, 16-bit, Q, K and V apart", kOneBillionHeads,
              stored_as(mixed_step(), kF16, 16), kF16, {.rotary_dim = 64, .packed = false}),
      appends("appends, 16-bit, a part of the head", {6, 2, 80, 80, 0.1118F, 0, 0},
              stored_as(mixed_step(), kBF16, 32), kBF16, {.rotary_dim = 32}),
      appends("appends, 16-bit, heads of 80", {6, 2, 80, 80, 0.1118F, 0, 0},
              stored_as(edges(), kBF16, 32), kBF16, {.rotary_dim = 80}),
      appends("appends, 16-bit, heads of 96", {6, 3, 96, 96, 0.1021F, 0, 0},
              stored_as(mixed_step(), kF16, 32), kF16, {.rotary_dim = 96}),
      appends("appends, 16-bit, heads of 256", {8, 1, 256, 256, 0.0625F, 0, 0},
              stored_as(mixed_step(), kBF16, 64), kBF16, {.rotary_dim = 256}),
      appends("appends, 16-bit, neighbours", kEightBillionHeads, stored_as(edges(), kF16, 64), kF16,
              {.rotary_dim = 128, .interleaved = true}),
      appends("appends, 16-bit, some neighbours", kOneBillionHeads,
              stored_as(mixed_step(), kBF16, 16), kBF16, {.rotary_dim = 26, .interleaved = true}),
      appends("appends, 16-bit, odd halves", kOneBillionHeads, stored_as(mixed_step(), kBF16, 16),
              kBF16, {.rotary_dim = 26}),
      appends("appends, 16-bit, no rotation", {4, 4, 64, 64, 0.125F, 0, 0},
              stored_as(mixed_step(), kBF16, 16), kBF16, {}),
      appends("appends, 16-bit, window", windowed, stored_as(mixed_step(), kBF16, 16), kBF16,
              {.rotary_dim = 128}),
      appends("appends, 16-bit, window and sinks", with_sinks, stored_as(mixed_step(), kBF16, 16),
              kBF16, {.rotary_dim = 64}),
      appends("appends, 16-bit, window of a few keys and sinks", {4, 2, 64, 64, 0.125F, 5, 40},
              stored_as(several(4), kBF16, 16), kBF16, {.rotary_dim = 64}),
      appends("appends, 16-bit, sink logits", kGptOssHeads, stored_as(mixed_step(), kBF16, 64),
              kBF16, {.rotary_dim = 64}),
      appends("appends, 16-bit, contiguous", {4, 1, 128, 128, 0.0884F, 0, 0},
              stored_as(mixed_step(), kBF16, 0), kBF16, {.rotary_dim = 128}),
      appends("appends, 16-bit, blocks that no tile fits", kEightBillionHeads,
              stored_as(mixed_step(), kBF16, 8), kBF16, {.rotary_dim = 128}),
      appends("appends, int8", kEightBillionHeads, stored_as(edges(), kI8, 64), kBF16,
              {.rotary_dim = 128}),
      appends("appends, int8, four tokens, neighbours", kOneBillionHeads,
              stored_as(several(4), kI8, 16), kF16, {.rotary_dim = 64, .interleaved = true}),
      appends("appends, int8, heads of 256", {8, 1, 256, 256, 0.0625F, 0, 0},
              stored_as(mixed_step(), kI8, 64), kBF16, {.rotary_dim = 64}),
      appends("appends, fp8", kEightBillionHeads, stored_as(mixed_step(), kF8E4M3, 32), kBF16,
              {.rotary_dim = 128}),
      appends("appends, fp8, window and sinks", with_sinks, stored_as(edges(), kF8E4M3, 16), kF16,
              {.rotary_dim = 64}),
  };
}

/// A step of a few sequences of these lengths, one token each but where a length is 0. Rows that no
/// sequence owns lie between them, unless that would be too many for the tactic.
KvCaseSpec few(std::initializer_list<int> lengths) {
  KvCaseSpec spec{.sequences = {}, .row_gap = lengths.size() < 6 ? 1 : 0};
  for (const int length : lengths) {
    spec.sequences.push_back({std::max(length - 1, 0), length > 0 ? 1 : 0, kGeneration});
  }
  return spec;
}

/// Few sequences, for clusters of 8, 4 or 2 blocks to a KV head.
std::vector<Case> few_cases() {
  using enum ir::DType;
  const auto of_8b = [](std::string name, const KvCaseSpec& spec) {
    return appends("few, " + std::move(name), kEightBillionHeads, stored_as(spec, kBF16, 64), kBF16,
                   {.rotary_dim = 128, .planned = false});
  };
  KvCaseSpec two_tokens = few({129, 64});
  two_tokens.sequences.push_back({100, 2, kGeneration});
  KvCaseSpec behind_a_prompt = few({40, 300});
  behind_a_prompt.sequences.insert(behind_a_prompt.sequences.begin(), {0, 3, kContext});
  const AttentionShape with_sink_logits{.heads = 8,
                                        .kv_heads = 2,
                                        .head_size = 128,
                                        .v_head_size = 128,
                                        .scale = 0.0884F,
                                        .sink_logits = true};
  return {
      of_8b("one key", few({1})),
      of_8b("one sequence", few({385})),
      of_8b("one long sequence", few({3001})),
      of_8b("one that all blocks share", few({8500})),
      of_8b("two sequences", few({512, 16})),
      of_8b("three, one without a token", few({1025, 0, 17})),
      of_8b("eight, around tiles and steps", few({15, 16, 17, 128, 129, 144, 512, 513})),
      of_8b("eight, one far longer", few({15, 16, 17, 128, 2500, 144, 0, 513})),
      of_8b("two tokens", two_tokens),
      of_8b("behind a prompt", behind_a_prompt),
      appends("few, a head each", {6, 6, 64, 64, 0.125F, 0, 0},
              stored_as(few({1, 70, 1000}), kF16, 16), kF16, {.rotary_dim = 64, .packed = false}),
      appends("few, three heads share one", {6, 2, 64, 64, 0.125F, 0, 0},
              stored_as(few({33, 250, 5, 2049}), kBF16, 16), kBF16, {.rotary_dim = 64}),
      appends("few, eight heads share one", {64, 8, 128, 128, 0.0884F, 0, 0},
              stored_as(few({65, 300, 1000}), kF16, 64), kF16, {.rotary_dim = 128}),
      appends("few, eight heads of 64 share one", {16, 2, 64, 64, 0.125F, 0, 0},
              stored_as(few({65, 300, 1000, 7, 700}), kBF16, 32), kBF16, {.rotary_dim = 64}),
      appends("few, sink logits", with_sink_logits, stored_as(few({200, 3}), kBF16, 64), kBF16,
              {.rotary_dim = 128}),
      appends("few, contiguous", kOneBillionHeads, stored_as(few({200, 3}), kBF16, 0), kBF16,
              {.rotary_dim = 64}),
      appends("few, int8", kEightBillionHeads, stored_as(few({200, 3}), kI8, 64), kBF16,
              {.rotary_dim = 128}),
  };
}

/// Heads whose logits, a few units large, a soft cap of 2 bends.
AttentionShape capped(int heads, int kv_heads, int head_size, int window = 0) {
  return {.heads = heads,
          .kv_heads = kv_heads,
          .head_size = head_size,
          .v_head_size = head_size,
          .scale = 2.5F / std::sqrt(static_cast<float>(head_size)),
          .window = window,
          .softcap = 2};
}

/// Soft caps where tensor cores take them.
std::vector<Case> capped_cases() {
  using enum ir::DType;
  AttentionShape with_all_sinks = capped(8, 2, 64, 300);
  with_all_sinks.sink_tokens = 20;
  with_all_sinks.sink_logits = true;
  return {
      make("soft cap, heads of 64", capped(8, 2, 64), stored_as(mixed_step(), kBF16, 16), kBF16),
      make("soft cap, heads of 80", capped(6, 2, 80), stored_as(mixed_step(), kF16, 32), kF16),
      make("soft cap, heads of 96", capped(6, 3, 96), stored_as(mixed_step(), kBF16, 32), kBF16),
      make("soft cap, heads of 128, window", capped(32, 16, 128, 64),
           stored_as(mixed_step(), kF16, 64), kF16),
      make("soft cap, heads of 256, edges", capped(16, 8, 256), stored_as(edges(), kBF16, 64),
           kBF16),
      make("soft cap, 16 heads share one", capped(16, 1, 128), stored_as(mixed_step(), kF16, 64),
           kF16),
      make("soft cap, sink logits, window and sinks", with_all_sinks,
           stored_as(mixed_step(), kF16, 16), kF16),
      split(
          make("soft cap, 32 pieces", capped(8, 4, 128), stored_as(mixed_step(), kBF16, 64), kBF16),
          32),
      appends("soft cap, appends, heads of 256, window", capped(16, 8, 256, 100),
              stored_as(mixed_step(), kBF16, 64), kBF16, {.rotary_dim = 256}),
      appends("soft cap, appends, heads of 256, a part of the head", capped(4, 2, 256),
              stored_as(several(4), kF16, 16), kF16, {.rotary_dim = 64, .packed = false}),
      appends("soft cap, appends, eight tokens, several pieces", capped(8, 4, 128),
              stored_as(several_pieces(8), kBF16, 64), kBF16, {.rotary_dim = 128}),
      appends("soft cap, appends, 40 tokens, neighbours", capped(8, 2, 64),
              stored_as(several(40), kF16, 16), kF16, {.rotary_dim = 64, .interleaved = true}),
      appends("soft cap, appends, few sequences", capped(16, 8, 128),
              stored_as(few({385, 16}), kBF16, 64), kBF16, {.rotary_dim = 128, .planned = false}),
      appends("soft cap, appends, many sequences", capped(16, 8, 128),
              stored_as(many(false), kBF16, 64), kBF16, {.rotary_dim = 128}),
  };
}

/// The same, of caches of 8 bits.
std::vector<Case> capped_eight_bit_cases() {
  using enum ir::DType;
  return {
      make("soft cap, int8, heads of 64", capped(8, 2, 64), stored_as(mixed_step(), kI8, 16),
           kBF16),
      make("soft cap, int8, 16 heads share one", capped(16, 1, 128),
           stored_as(mixed_step(), kI8, 64), kF16),
      make("soft cap, fp8, 16 heads of 64 share one", capped(32, 2, 64),
           stored_as(mixed_step(), kF8E4M3, 16), kF16),
      make("soft cap, fp8, heads of 256, window", capped(8, 4, 256, 100),
           stored_as(mixed_step(), kF8E4M3, 64), kBF16),
      appends("soft cap, appends, int8, edges", capped(8, 4, 128), stored_as(edges(), kI8, 64),
              kBF16, {.rotary_dim = 128}),
      appends("soft cap, appends, int8, heads of 256", capped(8, 4, 256),
              stored_as(mixed_step(), kI8, 64), kF16, {.rotary_dim = 256}),
      appends("soft cap, appends, fp8, eight tokens, several pieces", capped(8, 4, 128),
              stored_as(several_pieces(8), kF8E4M3, 64), kBF16, {.rotary_dim = 128}),
  };
}

/// ALiBi where tensor cores take it.
std::vector<Case> alibi_cases() {
  using enum ir::DType;
  const auto sloped = [](AttentionShape shape) {
    shape.alibi_max_bias = 8;
    return shape;
  };
  return {
      make("ALiBi, heads of 128, edges", sloped({8, 8, 128, 128, 0.0884F, 0, 0}),
           stored_as(edges(), kBF16, 64), kBF16),
      make("ALiBi, int8, 16 heads share one, window and sinks",
           sloped({16, 1, 64, 64, 0.125F, 300, 20}), stored_as(mixed_step(), kI8, 16), kBF16),
      make("ALiBi and soft cap, fp8, heads of 256", sloped(capped(8, 4, 256)),
           stored_as(mixed_step(), kF8E4M3, 64), kF16),
      appends("ALiBi, appends, no rotation, 20 tokens", sloped({12, 3, 128, 128, 0.0884F, 0, 0}),
              stored_as(several_pieces(20), kBF16, 64), kBF16, {}),
      appends("ALiBi, appends, many sequences", sloped({16, 8, 128, 128, 0.0884F, 0, 0}),
              stored_as(many(true), kF16, 64), kF16, {.rotary_dim = 128}),
  };
}

/// Sequences of `length` tokens, the last `tokens` of them new.
Case timed_append(std::string name, int length, size_t batch, ir::DType stored = ir::DType::kBF16,
                  const AttentionShape& shape = kEightBillionHeads, int tokens = 1) {
  Case c = appends(
      std::move(name), shape,
      {.sequences = std::vector<KvCaseSequence>(batch, {length - tokens, tokens, kGeneration}),
       .dtype = stored,
       .tokens_per_block = 64},
      ir::DType::kBF16, {.rotary_dim = shape.head_size});
  c.benchmark = true;
  return c;
}

/// As a step of Llama 3.1 8B runs it, or of Llama 2 13B, whose heads share nothing, or of Gemma 2
/// 9B. Four tokens of each sequence are what speculation brings.
std::vector<Case> timed_append_cases() {
  using enum ir::DType;
  constexpr AttentionShape kGemmaHeads{.heads = 16,
                                       .kv_heads = 8,
                                       .head_size = 256,
                                       .v_head_size = 256,
                                       .scale = 0.0625F,
                                       .softcap = 50};
  return {
      timed_append("1 x 384 of 8B, appends", 384, 1),
      timed_append("2 x 384 of 8B, appends", 384, 2),
      timed_append("4 x 384 of 8B, appends", 384, 4),
      timed_append("8 x 384 of 8B, appends", 384, 8),
      timed_append("32 x 384 of 8B, appends", 384, 32),
      timed_append("128 x 384 of 8B, appends", 384, 128),
      timed_append("1 x 1k of 8B, appends", 1024, 1),
      timed_append("1 x 4k of 8B, appends", 4096, 1),
      timed_append("8 x 4k of 8B, appends", 4096, 8),
      timed_append("64 x 4k of 8B, appends", 4096, 64),
      timed_append("1 x 32k of 8B, appends", 32768, 1),
      timed_append("1 x 128k of 8B, appends", 131072, 1),
      timed_append("64 x 4k of 8B, appends, int8", 4096, 64, kI8),
      timed_append("64 x 4k of 8B, appends, fp8", 4096, 64, kF8E4M3),
      timed_append("1 x 128k of 8B, appends, int8", 131072, 1, kI8),
      timed_append("1 x 128k of 8B, appends, fp8", 131072, 1, kF8E4M3),
      timed_append("16 x 4k of 13B, appends", 4096, 16, kBF16, kThirteenBillionHeads),
      timed_append("64 x 4k of 13B, appends", 4096, 64, kBF16, kThirteenBillionHeads),
      timed_append("4 tokens x 8 x 4k of 8B, appends", 4096, 8, kBF16, kEightBillionHeads, 4),
      timed_append("4 tokens x 64 x 4k of 8B, appends", 4096, 64, kBF16, kEightBillionHeads, 4),
      timed_append("4 tokens x 1 x 32k of 8B, appends", 32768, 1, kBF16, kEightBillionHeads, 4),
      timed_append("1 x 700 of Gemma 2 9B, appends", 700, 1, kBF16, kGemmaHeads),
      timed_append("8 x 4k of Gemma 2 9B, appends", 4096, 8, kBF16, kGemmaHeads),
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
                      append_cases(), several_tokens_cases(), many_cases(), many_wide_cases(),
                      many_eight_bit_cases(), few_cases(), capped_cases(), capped_eight_bit_cases(),
                      alibi_cases(), timed_cases(), timed_append_cases()})) {
    all.insert(all.end(), std::make_move_iterator(cases.begin()),
               std::make_move_iterator(cases.end()));
  }
  return all;
}

}  // namespace millrace::ops
