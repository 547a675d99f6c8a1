// Checks of input types for shape rules, with messages that name the input.
//
//   const ShapeRule in("rms_norm", types, {"x", "weight"});
//   in.expect_float(0);
//   in.expect_shape(1, {in.dim(0, -1)});
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace millrace::ops {

class ShapeRule {
 public:
  /// Throws Error unless there are as many types as names, or up to `optional` fewer.
  ShapeRule(std::string_view op, std::span<const ir::TensorType> types,
            std::initializer_list<const char*> names, int optional = 0);

  int count() const { return static_cast<int>(types_.size()); }
  const ir::TensorType& type(int input) const { return types_[static_cast<size_t>(input)]; }
  /// Dimension `i`, from the end if negative.
  const ir::Dim& dim(int input, int i) const;

  // Each throws Error when the input is otherwise.
  void expect_float(int input) const;  // f32, bf16 or f16
  void expect_dtype(int input, ir::DType dtype) const;
  void expect_rank(int input, int rank) const;
  void expect_min_rank(int input, int rank) const;
  void expect_shape(int input, const ir::Shape& shape) const;
  void expect_same_type(int input, int other) const;
  [[noreturn]] void fail(int input, const std::string& expected) const;

 private:
  std::string_view op_;
  std::span<const ir::TensorType> types_;
  std::vector<const char*> names_;
};

}  // namespace millrace::ops
