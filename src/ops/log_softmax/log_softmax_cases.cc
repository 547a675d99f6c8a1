#include <cmath>

#include "ops/harness/cases.h"
#include "ops/log_softmax/log_softmax.h"

namespace millrace::ops {

std::vector<Case> log_softmax_cases() {
  using enum ir::DType;
  return {
      {.name = "width that no vector divides", .inputs = {normal(kF32, {3, 77}, 3)}},
      {.name = "one token", .inputs = {normal(kF32, {4, 1}, 3)}},
      {.name = "more than a chunk", .inputs = {normal(kF32, {2, 40003}, 3)}},
      {.name = "masked tokens",
       .inputs = {floats(kF32, {2, 3}, {-INFINITY, 0, 1, 2, -INFINITY, -INFINITY})}},
      {.name = "no rows", .inputs = {normal(kF32, {0, 9})}},
      {.name = "4 x 128256", .inputs = {normal(kF32, {4, 128256}, 3)}, .benchmark = true},
  };
}

}  // namespace millrace::ops
