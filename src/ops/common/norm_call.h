// What the norm ops share besides their formulas: attributes, inputs, groups. Host code.
#pragma once

#include "ops/common/norm_options.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

/// The parts of a launch: inputs x, [residual,] [weight, [bias]]; outputs [sum,] normed. Each of
/// the rows [T, E] is `groups` rows of `width` elements that are normalised on their own.
struct NormCall {
  const Tensor* x;
  const Tensor* residual;  // null where nothing is added first
  const Tensor* weight;    // [groups * width] or [width]; may be null
  const Tensor* bias;      // like the weight; may be null
  const Tensor* sum;       // null without a residual
  const Tensor* out;
  int64_t rows, width;    // with groups counted as rows
  int64_t groups;         // row r is number r % groups of its group
  int64_t weight_stride;  // from the weights of one group to those of the next

  ir::DType weight_type() const { return weight == nullptr ? x->dtype : weight->dtype; }
};

/// `add`: the op adds a residual first.
NormCall norm_call(const Launch& launch, bool add, const NormOptions& options);

/// normed * (weight + offset) + bias of column `column` in float64, for Op::exact of norms without
/// a residual.
double exact_norm_affine(const Launch& launch, const NormOptions& options, double normed,
                         int64_t column);

/// Bytes of weight and bias, inputs `first` and behind.
int64_t norm_weight_bytes(const Launch& launch, size_t first);

/// Checks weight and bias, inputs `first` and behind, where they are given. x has been checked.
void check_norm_weights(const ShapeRule& in, int first, int groups);

}  // namespace millrace::ops
