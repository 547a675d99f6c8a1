#include "ops/common/cuda_tactic.h"
#include "ops/common/sampling_testing.h"
#include "ops/harness/cases.h"
#include "ops/sample_token/sample_token.h"

namespace millrace::ops {
namespace {

/// `rows` rows like `row`, with seeds and positions of their own; `deviation` of the logits.
Case case_of(const char* name, SamplingRow row, int rows, int64_t vocab, double deviation = 3) {
  std::vector<SamplingRow> records;
  for (int l = 0; l < rows; ++l) {
    row.slot = rows - 1 - l;
    row.seed = static_cast<uint64_t>(l) * 0x123456789;
    row.length = l % 8;
    records.push_back(row);
  }
  return {.name = name,
          .attrs = {},
          .inputs = {ids({rows, 8}, 100), normal(ir::DType::kF32, {rows, vocab}, deviation),
                     normal(ir::DType::kF32, {rows, vocab}, deviation),
                     ints({rows, kSamplingRowWords}, row_words(records))}};
}

/// `count` records, turn by turn like `even` and like `odd`; one in seven is padding.
std::vector<SamplingRow> every_other(int count, SamplingRow even, SamplingRow odd) {
  std::vector<SamplingRow> records;
  for (int l = 0; l < count; ++l) {
    SamplingRow row = l % 2 == 0 ? even : odd;
    row.slot = l % 7 == 3 ? -1 : l;
    row.seed = static_cast<uint64_t>(l) * 0x987654321;
    row.length = l % 8;
    records.push_back(row);
  }
  return records;
}

Case benchmark(Case c) {
  c.benchmark = true;
  return c;
}

}  // namespace

std::vector<Case> sample_token_cases() {
  const SamplingRow greedy{.slot = 0};
  const SamplingRow plain{.slot = 0, .flags = kSamplingDraws};
  const SamplingRow adjusted{.slot = 0, .flags = kSamplingDraws | kSamplingAdjusts};
  SamplingRow warm = plain, k = plain, p = plain, min_p = plain, typical = plain, all = adjusted,
              many = adjusted;
  warm.temperature = 1.5f;
  k.top_k = all.top_k = 50;
  p.top_p = all.top_p = 0.9f;
  min_p.min_p = all.min_p = 0.02f;
  typical.typical_p = all.typical_p = 0.9f;
  all.temperature = 0.7f;
  many.top_k = 600;
  many.top_p = 0.95f;
  Case padding = case_of("padding", plain, 2, 9);
  padding.inputs[3] = ints({2, kSamplingRowWords}, row_words({{}, greedy}));
  Case mixed = case_of("some rows draw, more than clusters", k, 70, 1203);
  Case odd = case_of("more rows than blocks, width that no pack divides", greedy, 140, 1201);
  Case kinds = case_of("a row of each kind in many", p, 36, 800);
  mixed.inputs[3] = ints({70, kSamplingRowWords}, row_words(every_other(70, greedy, k)));
  kinds.inputs[3] = ints({36, kSamplingRowWords}, row_words(every_other(36, all, greedy)));
  return {
      case_of("greedy, width that no vector divides", greedy, 3, 77),
      case_of("greedy, one token", greedy, 1, 1), case_of("temperature", warm, 7, 133),
      case_of("top_k", k, 5, 3001), case_of("top_k above the vocabulary", k, 3, 31),
      case_of("top_p", p, 5, 3001), case_of("top_p of flat rows", p, 3, 3001, 0.01),
      case_of("top_k of wide rows", k, 5, 3001, 100),
      case_of("top_p of wide rows", p, 3, 3001, 1e4), case_of("min_p", min_p, 5, 500),
      case_of("typical_p", typical, 5, 500),
      case_of("all limits, more rows than tasks", all, 35, 400),
      case_of("top_k of hundreds", many, 20, 3004), case_of("more than a chunk", p, 3, 40003),
      case_of("more than a list takes", p, 3, 40004, 0.01), std::move(padding), std::move(mixed),
      std::move(odd), std::move(kinds), benchmark(case_of("greedy 1 x 128256", greedy, 1, 128256)),
      benchmark(case_of("greedy 16 x 128256", greedy, 16, 128256)),
      benchmark(case_of("temperature 1 x 128256", warm, 1, 128256)),
      benchmark(case_of("top_p 1 x 128256", p, 1, 128256)),
      benchmark(case_of("top_p of flat rows 1 x 128256", p, 1, 128256, 0.1)),
      benchmark(case_of("all limits 1 x 128256", all, 1, 128256)),
      benchmark(case_of("all limits 8 x 128256", all, 8, 128256)),
      // On a CPU these take long: only where there may be a GPU. One draw in a thousand would show,
      // and none may differ. Rows are wide: without limits hundreds of tokens have a share.
      MILLRACE_ON_CUDA(case_of("temperature, 2000 draws", warm, 2000, 4096, 1),
                       case_of("top_k, 2000 draws", k, 2000, 4096, 1),
                       case_of("top_p, 2000 draws", p, 2000, 4096, 1),
                       case_of("min_p, 2000 draws", min_p, 2000, 4096, 1),
                       case_of("typical_p, 2000 draws", typical, 2000, 4096, 1),
                       case_of("all limits, 2000 draws", all, 2000, 4096, 1),
                       benchmark(case_of("greedy 128 x 128256", greedy, 128, 128256)),
                       benchmark(case_of("temperature 128 x 128256", warm, 128, 128256)),
                       benchmark(case_of("top_p 128 x 128256", p, 128, 128256)),
                       benchmark(case_of("all limits 128 x 128256", all, 128, 128256)), )};
}

}  // namespace millrace::ops
