#include <numeric>

#include "ops/attention_encoder/attention_encoder.h"
#include "ops/harness/cases.h"

namespace millrace::ops {
namespace {

/// Sequences of these lengths, `gap` rows that none owns in front of each and at the end.
Case make(std::string name, const AttentionEncoder& a, const std::vector<int32_t>& lengths,
          int gap = 0, ir::DType dtype = ir::DType::kF32) {
  std::vector<int32_t> starts;
  int64_t rows = 0;
  for (const int32_t length : lengths) {
    starts.push_back(static_cast<int32_t>(rows += gap));
    rows += length;
  }
  rows += gap;
  const auto s = static_cast<int64_t>(lengths.size());
  Case c{.name = std::move(name), .attrs = to_attrs(a)};
  c.inputs = {normal(dtype, {rows, int64_t{a.heads} * a.head_size}, 2),
              normal(dtype, {rows, int64_t{a.kv_heads} * a.head_size}),
              normal(dtype, {rows, int64_t{a.kv_heads} * a.v_head_size}), ints({s}, starts),
              ints({s}, lengths)};
  if (a.relative_buckets > 0) {
    c.inputs.push_back(normal(dtype, {int64_t{a.relative_buckets}, int64_t{a.heads}}, 2));
  }
  // Products of up to 100, summed in float, leave 3e-6 of the result.
  c.tolerance = dtype == ir::DType::kF32 ? 3e-6 : 0;
  return c;
}

Case timed(Case c) {
  c.benchmark = true;
  return c;
}

}  // namespace

std::vector<Case> attention_encoder_cases() {
  using enum ir::DType;
  const AttentionEncoder bert{
      .heads = 3, .kv_heads = 3, .head_size = 64, .v_head_size = 64, .scale = 0.125};
  const AttentionEncoder t5{.heads = 6,
                            .kv_heads = 6,
                            .head_size = 32,
                            .v_head_size = 32,
                            .scale = 0.3,
                            .relative_buckets = 32};
  const AttentionEncoder odd{.heads = 6,
                             .kv_heads = 2,
                             .head_size = 27,
                             .v_head_size = 13,
                             .scale = 0.2,
                             .relative_buckets = 6,
                             .relative_max_distance = 9};
  const AttentionEncoder of_80{
      .heads = 2, .kv_heads = 2, .head_size = 80, .v_head_size = 80, .scale = 0.1};
  AttentionEncoder of_128 = of_80;
  of_128.head_size = of_128.v_head_size = 128;
  // Elements that come one by one, in more than one chunk; more columns than a block of a GPU has.
  const AttentionEncoder wide{
      .heads = 2, .kv_heads = 1, .head_size = 131, .v_head_size = 259, .scale = 0.08};
  AttentionEncoder grouped_t5 = t5;
  grouped_t5.kv_heads = 2;
  AttentionEncoder large = bert;
  large.heads = large.kv_heads = 12;
  return {
      make("one sequence", bert, {37}),
      make("one row", bert, {1}),
      make("lengths around a tile of queries and of keys", bert, {3, 4, 5, 63, 64, 65, 130}),
      make("lengths around a warp, and around 16 queries", bert, {15, 16, 17, 31, 32, 33}),
      make("rows that nobody owns, a sequence without rows", bert, {5, 0, 17}, 3),
      make("t5: relative bias", t5, {70, 1, 200}),
      make("t5 in a padded layout", t5, {9, 33}, 5),
      make("grouped heads of sizes that no vector divides", odd, {11, 40}, 1),
      make("heads of 80", of_80, {1, 65, 33}, 1),
      make("heads of 128", of_128, {129, 17}),
      make("heads of 131, values of 259", wide, {66, 4}, 1),
      make("grouped heads with bias", grouped_t5, {150, 2}),
      make("more sequences than a block looks at at once", bert, std::vector<int32_t>(150, 2), 1),
      make("bf16", bert, {33, 70}, 0, kBF16),
      make("bf16, elements one by one", odd, {70, 3}, 1, kBF16),
      make("f16 in heads of 80", of_80, {65}, 0, kF16),
      make("f16 with bias", t5, {33, 70}, 1, kF16),
      timed(make("BERT base, 8 texts of 128", large, std::vector<int32_t>(8, 128))),
      timed(make("BERT base, a text of 512", large, {512})),
  };
}

}  // namespace millrace::ops
