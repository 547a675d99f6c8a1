#include "ops/harness/cases.h"

namespace millrace::ops {

std::vector<Case> merge_ids_cases() {
  return {
      {.name = "from both sides, first and last slot",
       .inputs = {ints({6}, {5, -1, 0, -4, 7, -2}), ints({2, 2}, {10, 11, 12, 13})}},
      {.name = "all from the host", .inputs = {ids({100}, 1000), ints({1}, {3})}},
      {.name = "no rows", .inputs = {ids({0}, 4), ints({1}, {0})}},
  };
}

}  // namespace millrace::ops
