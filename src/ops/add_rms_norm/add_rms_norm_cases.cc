#include "ops/add_rms_norm/add_rms_norm.h"
#include "ops/harness/cases.h"

namespace millrace::ops {

std::vector<Case> add_rms_norm_cases() {
  using enum ir::DType;
  const ir::Attrs attrs = to_attrs(AddRmsNorm{});
  const auto inputs = [](ir::DType x, ir::DType weight, int64_t rows, int64_t width) {
    return std::vector<InputSpec>{normal(x, {rows, width}), normal(x, {rows, width}),
                                  normal(weight, {width}, 0.3, 1)};
  };
  return {
      {.name = "novelist-14m", .attrs = attrs, .inputs = inputs(kF32, kF32, 3, 384)},
      {.name = "width that no vector divides", .attrs = attrs, .inputs = inputs(kF32, kF32, 4, 45)},
      {.name = "width below one vector", .attrs = attrs, .inputs = inputs(kF32, kBF16, 2, 3)},
      {.name = "more rows than one thread takes",
       .attrs = attrs,
       .inputs = inputs(kF32, kBF16, 67, 1111)},
      {.name = "large eps",
       .attrs = to_attrs(AddRmsNorm{.eps = 0.25}),
       .inputs = inputs(kF32, kF16, 2, 100)},
      {.name = "bf16 activations", .attrs = attrs, .inputs = inputs(kBF16, kBF16, 5, 130)},
      {.name = "f16 activations", .attrs = attrs, .inputs = inputs(kF16, kF32, 5, 77)},
      {.name = "weights with an offset",
       .attrs = to_attrs(AddRmsNorm{.weight_offset = 1}),
       .inputs = inputs(kF32, kBF16, 5, 77)},
      {.name = "weights with an offset, bf16",
       .attrs = to_attrs(AddRmsNorm{.weight_offset = 1}),
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
