#include "ops/add_row/add_row.h"
#include "ops/harness/cases.h"

namespace millrace::ops {
namespace {

Case make(std::string name, int64_t rows, int64_t width, ir::DType x = ir::DType::kF32,
          ir::DType row = ir::DType::kF32) {
  return {.name = std::move(name),
          .attrs = to_attrs(AddRow{}),
          .inputs = {normal(x, {rows, width}), normal(row, {1, width})}};
}

}  // namespace

std::vector<Case> add_row_cases() {
  using enum ir::DType;
  Case timed = make("BERT base, 8 texts of 128", 1024, 768);
  timed.benchmark = true;
  return {
      make("one row", 1, 64),
      make("odd width", 7, 13),
      make("no rows", 0, 16),
      make("more rows than one thread takes", 700, 100),
      make("bf16", 9, 48, kBF16, kBF16),
      make("f16 and a row of f32", 9, 48, kF16, kF32),
      make("f32 and a row of bf16", 9, 48, kF32, kBF16),
      timed,
  };
}

}  // namespace millrace::ops
