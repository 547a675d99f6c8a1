#include "ops/harness/cases.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::ops {

std::vector<Case> rms_norm_cases() {
  using enum ir::DType;
  const ir::Attrs attrs = to_attrs(RmsNorm{});
  const auto inputs = [](ir::DType x, ir::DType weight, int64_t rows, int64_t width) {
    return std::vector<InputSpec>{normal(x, {rows, width}), normal(weight, {width}, 0.3, 1)};
  };
  return {
      {.name = "novelist-14m", .attrs = attrs, .inputs = inputs(kF32, kF32, 3, 384)},
      {.name = "width that no vector divides", .attrs = attrs, .inputs = inputs(kF32, kF32, 4, 45)},
      {.name = "width below one vector", .attrs = attrs, .inputs = inputs(kF32, kBF16, 2, 3)},
      {.name = "one element", .attrs = attrs, .inputs = inputs(kF32, kF32, 1, 1)},
      {.name = "more rows than one thread takes",
       .attrs = attrs,
       .inputs = inputs(kF32, kBF16, 67, 1111)},
      {.name = "large eps, small numbers",
       .attrs = to_attrs(RmsNorm{.eps = 0.25}),
       .inputs = {normal(kF32, {2, 100}, 1e-3), normal(kF16, {100})}},
      {.name = "zeros",
       .attrs = attrs,
       .inputs = {floats(kF32, {1, 8}, std::vector<float>(8, 0)), normal(kF32, {8})}},
      {.name = "outlier channel",
       .attrs = attrs,
       .inputs = {floats(kF32, {1, 9}, {1, -2, 3, 1e6F, 0.5, -1, 2, -3, 1}), normal(kF32, {9})}},
      {.name = "bf16 activations", .attrs = attrs, .inputs = inputs(kBF16, kBF16, 5, 130)},
      {.name = "f16 activations", .attrs = attrs, .inputs = inputs(kF16, kF32, 5, 77)},
      {.name = "weights with an offset",
       .attrs = to_attrs(RmsNorm{.weight_offset = 1}),
       .inputs = inputs(kF32, kBF16, 5, 77)},
      {.name = "weights with an offset, bf16",
       .attrs = to_attrs(RmsNorm{.weight_offset = 1}),
       .inputs = inputs(kBF16, kBF16, 3, 136)},
      {.name = "no rows", .attrs = attrs, .inputs = inputs(kF32, kF32, 0, 16)},
      {.name = "1 x 2048",
       .attrs = attrs,
       .inputs = inputs(kF32, kBF16, 1, 2048),
       .benchmark = true},
      {.name = "512 x 2048",
       .attrs = attrs,
       .inputs = inputs(kF32, kBF16, 512, 2048),
       .benchmark = true},
  };
}

}  // namespace millrace::ops
