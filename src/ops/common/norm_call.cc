#include "ops/common/norm_call.h"

#include "base/error.h"
#include "ops/common/exact.h"

namespace millrace::ops {

NormCall norm_call(const Launch& launch, bool add, const NormOptions& options) {
  const size_t weight = add ? 2 : 1;
  const auto input = [&](size_t i) { return i < launch.in.size() ? &launch.in[i] : nullptr; };
  const Tensor& x = launch.in[0];
  NormCall call{.x = &x,
                .residual = add ? &launch.in[1] : nullptr,
                .weight = input(weight),
                .bias = input(weight + 1),
                .sum = add ? launch.out.data() : nullptr,
                .out = &launch.out[add ? 1 : 0],
                .rows = x.dim(0) * options.groups,
                .width = x.dim(1) / options.groups,
                .groups = options.groups,
                .weight_stride = 0};
  if (call.weight != nullptr && call.weight->count() != call.width) call.weight_stride = call.width;
  return call;
}

double exact_norm_affine(const Launch& launch, const NormOptions& options, double normed,
                         int64_t column) {
  const NormCall call = norm_call(launch, false, options);
  const int64_t i = call.weight_stride == 0 ? column % call.width : column;
  if (call.weight != nullptr) normed *= exact_element(*call.weight, i) + options.weight_offset;
  return call.bias == nullptr ? normed : normed + exact_element(*call.bias, i);
}

int64_t norm_weight_bytes(const Launch& launch, size_t first) {
  int64_t bytes = 0;
  for (size_t i = first; i < launch.in.size(); ++i)
    bytes += launch.in[i].bytes();
  return bytes;
}

void check_norm_weights(const ShapeRule& in, int first, int groups) {
  const ir::Dim& width = in.dim(0, 1);
  if (groups < 1) throw_bad_input(str("groups must be at least 1, got ", groups), "norm");
  if (groups > 1 && (!width.is_static() || width.value() % groups != 0))
    in.fail(0, str("a row of ", groups, " equal groups"));
  if (in.count() <= first) return;
  in.expect_float(first);
  const ir::Shape& shape = in.type(first).shape;
  if (groups == 1 && shape != ir::Shape{1, width}) {
    in.expect_shape(first, {width});
  } else if (groups > 1) {
    const int64_t part = width.value() / groups;
    if (shape != ir::Shape{part} && shape != ir::Shape{groups, part} && shape != ir::Shape{width})
      in.fail(first, str("the shape [", width.value(), "], [", groups, ", ", part, "] or [", part,
                         "] for ", groups, " groups"));
  }
  if (in.count() > first + 1) in.expect_same_type(first + 1, first);
}

}  // namespace millrace::ops
