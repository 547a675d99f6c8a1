#include "ops/harness/cases.h"
#include "ops/layer_norm/layer_norm.h"

namespace millrace::ops {

std::vector<Case> layer_norm_cases() {
  using enum ir::DType;
  const ir::Attrs attrs = to_attrs(LayerNorm{});
  const auto inputs = [](ir::DType x, ir::DType weight, int64_t rows, int64_t width) {
    return std::vector<InputSpec>{normal(x, {rows, width}), normal(weight, {width}, 0.3, 1),
                                  normal(weight, {width}, 0.5)};
  };
  return {
      {.name = "novelist-14m", .attrs = attrs, .inputs = inputs(kF32, kF32, 3, 384)},
      {.name = "width that no vector divides", .attrs = attrs, .inputs = inputs(kF32, kF32, 4, 45)},
      {.name = "width below one vector", .attrs = attrs, .inputs = inputs(kF32, kBF16, 2, 3)},
      {.name = "more rows than one thread takes",
       .attrs = attrs,
       .inputs = inputs(kF32, kBF16, 67, 1111)},
      {.name = "large eps",
       .attrs = to_attrs(LayerNorm{.eps = 0.25}),
       .inputs = inputs(kF32, kF16, 2, 100)},
      {.name = "no bias", .attrs = attrs, .inputs = {normal(kF32, {3, 50}), normal(kF32, {50})}},
      {.name = "mean far from zero",
       .attrs = attrs,
       .inputs = {normal(kF32, {3, 50}, 1, 100), normal(kF32, {50}), normal(kF32, {50})}},
      {.name = "bf16 activations", .attrs = attrs, .inputs = inputs(kBF16, kBF16, 5, 130)},
      {.name = "f16 activations", .attrs = attrs, .inputs = inputs(kF16, kF32, 5, 77)},
      {.name = "weights with an offset",
       .attrs = to_attrs(LayerNorm{.weight_offset = 1}),
       .inputs = inputs(kF32, kBF16, 5, 77)},
      {.name = "weights with an offset, bf16",
       .attrs = to_attrs(LayerNorm{.weight_offset = 1}),
       .inputs = inputs(kBF16, kBF16, 3, 136)},
      {.name = "no weight", .attrs = attrs, .inputs = {normal(kF32, {3, 50}, 1, 5)}},
      {.name = "no weight, bf16", .attrs = attrs, .inputs = {normal(kBF16, {3, 64}, 1, 5)}},
      {.name = "groups",
       .attrs = to_attrs(LayerNorm{.groups = 3}),
       .inputs = {normal(kF32, {5, int64_t{3} * 15}), normal(kF32, {3, 15})}},
      {.name = "groups, more than one thread takes",
       .attrs = to_attrs(LayerNorm{.groups = 32}),
       .inputs = {normal(kBF16, {37, int64_t{32} * 64}), normal(kBF16, {32, 64})}},
      {.name = "groups with weights as one row, and biases",
       .attrs = to_attrs(LayerNorm{.groups = 4}),
       .inputs = inputs(kF32, kF32, 3, int64_t{4} * 24)},
      {.name = "groups that share their weights",
       .attrs = to_attrs(LayerNorm{.weight_offset = 1, .groups = 4}),
       .inputs = {normal(kF32, {3, int64_t{4} * 24}), normal(kBF16, {24}), normal(kBF16, {24})}},
      {.name = "groups without weights",
       .attrs = to_attrs(LayerNorm{.groups = 2}),
       .inputs = {normal(kF16, {3, int64_t{2} * 21})}},
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
