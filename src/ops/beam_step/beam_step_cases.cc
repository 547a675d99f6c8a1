#include "ops/beam_step/beam_step.h"
#include "ops/common/beam_row.h"
#include "ops/common/sampling_testing.h"
#include "ops/harness/cases.h"

namespace millrace::ops {
namespace {

/// `firsts` requests behind their prompts, then `others` with a row for each beam.
Case case_of(const char* name, int k, int firsts, int others, int64_t vocab,
             std::vector<int32_t> end_ids = {1}) {
  std::vector<int32_t> records;
  int row = 0;
  for (int g = 0; g < firsts + others; ++g) {
    const int rows = g < firsts ? 1 : k;
    const int slot = (firsts + others - 1 - g) * k;
    records.insert(records.end(),
                   {slot, row, rows, 9, 5, 0, static_cast<int32_t>(end_ids.size()), 0});
    row += rows;
  }
  std::vector<SamplingRow> rows(static_cast<size_t>(row));
  for (size_t l = 0; l < rows.size(); ++l)
    rows[l].flags = l % 3 == 1 ? kSamplingAdjusts : 0;
  end_ids.push_back(0);  // a list is never empty
  const int64_t requests = firsts + others;
  return {
      .name = name,
      .attrs = to_attrs(BeamStep{.beams = k}),
      .inputs = {normal(ir::DType::kF32, {requests * k + 1}, 2, -6),
                 normal(ir::DType::kF32, {row, vocab}, 3, -8),
                 normal(ir::DType::kF32, {row, vocab}, 3, -8),
                 ints({row, kSamplingRowWords}, row_words(rows)),
                 ints({requests, kBeamRowWords}, records), ints({std::ssize(end_ids)}, end_ids)}};
}

/// Many equal scores: the order of equals decides.
Case with_equals(Case c) {
  const auto shape = c.inputs[1].shape;
  for (const size_t input : {size_t{0}, size_t{1}, size_t{2}}) {
    c.inputs[input] = filled(ir::DType::kF32, c.inputs[input].shape,
                             [](ir::DType, std::byte* data, int64_t count, Random& random) {
                               auto* x = reinterpret_cast<float*>(data);
                               for (int64_t i = 0; i < count; ++i)
                                 x[i] = -static_cast<float>(random.below(4));
                             });
  }
  return c;
}

Case timed(Case c) {
  c.benchmark = true;
  return c;
}

}  // namespace

std::vector<Case> beam_step_cases() {
  return {
      case_of("prompts and beams", 4, 2, 3, 301),
      case_of("several end tokens", 3, 1, 2, 70, {0, 69, 33}),
      case_of("end tokens outside the vocabulary", 2, 1, 1, 70, {-1, 70, 5}),
      case_of("none ends", 2, 1, 1, 70, {}),
      case_of("fewer tokens than beams", 8, 2, 1, 3),
      case_of("all tokens end", 2, 1, 1, 3, {0, 1, 2}),
      case_of("several pieces", 5, 1, 2, 9001),
      case_of("as many beams as there may be", kMaxBeams, 1, 1, 131),
      with_equals(case_of("equal scores", 4, 1, 2, 200)),
      with_equals(case_of("equal scores in several pieces", 3, 1, 2, 10000)),
      case_of("no requests", 4, 0, 0, 10),
      timed(case_of("4 beams x 128256", 4, 0, 1, 128256)),
      timed(case_of("8 x 4 beams x 128256", 4, 0, 8, 128256)),
  };
}

}  // namespace millrace::ops
