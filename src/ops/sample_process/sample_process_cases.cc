#include "ops/common/cuda_tactic.h"
#include "ops/common/sampling_testing.h"
#include "ops/harness/cases.h"
#include "ops/sample_process/sample_process.h"

namespace millrace::ops {
namespace {

constexpr int64_t kCapacity = 96;  // of the history

/// `rows` rows with these wishes, one in its own slot each, over a vocabulary of `vocab` tokens.
Case case_of(const char* name, const SamplingParams& params, int rows, int vocab,
             int alphabet = 9) {
  const std::vector<int> end = {2};
  const auto packed =
      pack_sampling(params, {.prompt_length = 7, .max_new_tokens = 60, .end_token_ids = end});
  std::vector<SamplingRow> records;
  std::vector<int32_t> lists = packed.lists;
  lists.push_back(0);
  for (int l = 0; l < rows; ++l)
    records.push_back(sampling_row_at(packed, rows - 1 - l, 7 + l % 60, 0));
  return {.name = name,
          .attrs = {},
          .inputs = {normal(ir::DType::kF32, {rows, vocab}, 3),
                     ints({rows, kSamplingRowWords}, row_words(records)),
                     ints({std::ssize(lists)}, lists), ids({rows, kCapacity}, alphabet),
                     normal(ir::DType::kF32, {rows, vocab})}};
}

SamplingParams penalties() {
  SamplingParams params;
  params.repetition_penalty = 1.2;
  params.presence_penalty = 0.5;
  params.frequency_penalty = 0.25;
  return params;
}

SamplingParams masks() {
  SamplingParams params;
  params.logit_bias = {{3, 2.5f}, {8, -100.0f}};
  params.no_repeat_ngram_size = 3;
  params.bad_words = {{5}, {1, 4}, {3, 3, 7}};
  params.min_new_tokens = 4;
  params.suppress_tokens = {6};
  params.begin_suppress_tokens = {1};
  params.stop_token_ids = {0};
  return params;
}

SamplingParams forced() {
  SamplingParams params;
  params.forced_eos_token_ids = {2, 5};
  return params;
}

/// What sample_token draws from must be the reference's, to the bit.
Case exact(Case c) {
  c.tolerance = 1e-12;
  return c;
}

Case benchmark(Case c) {
  c.benchmark = true;
  return c;
}

}  // namespace

std::vector<Case> sample_process_cases() {
  Case mixed = case_of("rows that need nothing, and padding", {}, 3, 40);
  mixed.inputs[1] = ints({3, kSamplingRowWords}, row_words({{}, SamplingRow{.slot = 1}, {}}));
  return {exact(case_of("penalties", penalties(), 5, 33)),
          case_of("masks of every kind", masks(), 12, 33),
          case_of("forced end at the limit", forced(), 60, 10),
          case_of("more rows than tasks", penalties(), 37, 11),
          case_of("history beyond the vocabulary", penalties(), 3, 5, 20),
          case_of("rows longer than a copied chunk", masks(), 2, 32771),
          std::move(mixed),
          benchmark(case_of("1 x 128256, penalties", penalties(), 1, 128256, 128256)),
          benchmark(case_of("16 x 128256, penalties", penalties(), 16, 128256, 128256)),
          MILLRACE_ON_CUDA(
              exact(case_of("penalties, 2000 rows", penalties(), 2000, 4096, 4096)),
              benchmark(case_of("128 x 128256, penalties", penalties(), 128, 128256, 128256)), )};
}

}  // namespace millrace::ops
