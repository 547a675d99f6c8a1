// An RMS norm between two products, done by the products. It divides each row of x by its root mean
// square and multiplies the columns with a weight, and a product is linear in the rows of x:
//
//   norm(x) W^T  =  (x * weight) W^T  /  rms(x)
//
// So the product that makes x also hands on x times the weight, and sums of squares of its rows,
// one for each part of the columns; the next product multiplies what was handed on, and divides its
// sums.
#pragma once

#include "ir/dtype.h"

namespace millrace::ops {

/// What a product hands on, and what was handed to it. In bf16: in f16 x times the weight could be
/// too large.
struct HandedNorm {
  void* scaled = nullptr;         // [T, N], for the next product; null: it has no norm
  float* squares = nullptr;       // [parts of N, rows of a tile]
  const float* weight = nullptr;  // [N], of the next product's norm
  float offset = 0;               // what is added to it

  const float* x_squares = nullptr;  // of this product's x; null: nothing was handed on
  int x_parts = 0;
  float eps = 0;
};

}  // namespace millrace::ops
