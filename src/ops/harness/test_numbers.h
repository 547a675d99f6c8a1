// What the tests of single ops share. For *_test.cc only.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "millrace/error.h"
#include "ops/harness/op_call.h"
#include "ops/op.h"

namespace millrace::ops {

/// Expects each float within `tolerance` x the largest |want| of numbers from elsewhere.
inline void expect_near(const HostTensor& got, const std::vector<double>& want,
                        double tolerance = 3e-7) {
  const std::vector<float> values = got.floats();
  ASSERT_EQ(values.size(), want.size());
  double largest = 0;
  for (const double w : want)
    largest = std::max(largest, std::fabs(w));
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(values[i], want[i], tolerance * largest) << "element " << i;
}

/// The types that the op's shape rule gives.
inline std::vector<ir::TensorType> infer_types(std::string_view op,
                                               const std::vector<ir::TensorType>& inputs,
                                               const ir::Attrs& attrs = {}) {
  return find_op(op)->infer(inputs, attrs);
}

/// The message of the Error that the op's shape rule throws; empty when it throws none.
inline std::string refusal(std::string_view op, const std::vector<ir::TensorType>& inputs,
                           const ir::Attrs& attrs = {}) {
  try {
    infer_types(op, inputs, attrs);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
}

}  // namespace millrace::ops
