#include "ops/beam_reorder/beam_reorder.h"
#include "ops/common/beam_row.h"
#include "ops/harness/cases.h"

namespace millrace::ops {
namespace {

/// Requests one after the other in the slots, each with these rows, lengths and prompt.
Case case_of(const char* name, int k, int64_t capacity, const std::vector<BeamRow>& requests) {
  const auto count = std::ssize(requests);
  std::vector<int32_t> records;
  for (const BeamRow& r : requests) {
    records.insert(records.end(),
                   {r.slot, 0, r.rows, r.length, r.prompt_length, r.end_ids.offset, 0, 0});
  }
  return {.name = name,
          .attrs = to_attrs(BeamReorder{.beams = k}),
          .inputs = {ids({2, count * k + 1, capacity}, 1000), ints({count, kBeamRowWords}, records),
                     ids({count, 2 * k}, k), ids({count, 2 * k}, 1000)}};
}

}  // namespace

std::vector<Case> beam_reorder_cases() {
  return {
      case_of("a first and a later step", 3, 20,
              {{.slot = 4, .rows = 1, .length = 7, .prompt_length = 7},
               {.slot = 0, .rows = 3, .length = 12, .prompt_length = 5}}),
      case_of("full tables", 2, 9,
              {{.slot = 1, .rows = 2, .length = 9, .prompt_length = 2},
               {.slot = 3, .rows = 2, .length = 8, .prompt_length = 8}}),
      case_of("as many beams as there may be", kMaxBeams, 300,
              {{.slot = 1, .rows = kMaxBeams, .length = 290, .prompt_length = 3}}),
      case_of("no requests", 4, 8, {}),
  };
}

}  // namespace millrace::ops
