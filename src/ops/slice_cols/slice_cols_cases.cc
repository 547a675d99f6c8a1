#include "ops/harness/cases.h"
#include "ops/slice_cols/slice_cols.h"

namespace millrace::ops {

std::vector<Case> slice_cols_cases() {
  using enum ir::DType;
  const auto slice = [](const char* name, InputSpec x, int begin, int end) {
    return Case{.name = name,
                .attrs = to_attrs(SliceCols{.begin = begin, .end = end}),
                .inputs = {std::move(x)}};
  };
  Case wide = slice("512 x 1024 of 3072", normal(kF32, {512, 3072}), 1024, 2048);
  wide.benchmark = true;
  return {slice("front", normal(kF32, {5, 45}), 0, 7),
          slice("middle", normal(kF32, {5, 45}), 7, 8),
          slice("end", normal(kBF16, {5, 45}), 8, 45),
          slice("all columns", normal(kF16, {5, 3}), 0, 3),
          slice("more rows than one thread takes", normal(kF32, {70, 1500}), 3, 1001),
          slice("no rows", normal(kF32, {0, 4}), 1, 2),
          wide};
}

}  // namespace millrace::ops
