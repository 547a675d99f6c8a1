#include "ops/gather_rows/gather_rows.h"
#include "ops/harness/cases.h"

namespace millrace::ops {

std::vector<Case> gather_rows_cases() {
  using enum ir::DType;
  return {
      {.name = "first, last, twice the same",
       .inputs = {normal(kF32, {7, 45}), ints({4}, {6, 0, 3, 3})}},
      {.name = "bf16", .inputs = {normal(kBF16, {7, 45}), ids({5}, 7)}},
      {.name = "f16", .inputs = {normal(kF16, {7, 3}), ids({5}, 7)}},
      {.name = "more rows than one thread takes",
       .inputs = {normal(kF32, {60, 999}), ids({80}, 60)}},
      {.name = "ids of two experts a row", .inputs = {ids({7, 2}, 60), ids({5}, 7)}},
      {.name = "two vectors a row", .inputs = {normal(kBF16, {7, 2, 24}), ids({5}, 7)}},
      {.name = "no rows", .inputs = {normal(kF32, {7, 45}), ids({0}, 7)}},
      {.name = "64 of 2048 x 2048",
       .inputs = {normal(kF32, {2048, 2048}), ids({64}, 2048)},
       .benchmark = true},
  };
}

}  // namespace millrace::ops
