#include "ops/common/shape_rule.h"

#include "base/error.h"
#include "ops/common/float_types.h"

namespace millrace::ops {

ShapeRule::ShapeRule(std::string_view op, std::span<const ir::TensorType> types,
                     std::initializer_list<const char*> names, int optional)
    : op_(op), types_(types), names_(names) {
  const size_t least = names_.size() - static_cast<size_t>(optional);
  if (types.size() >= least && types.size() <= names_.size()) return;
  throw_bad_input(str(types.size(), types.size() == 1 ? " input" : " inputs",
                      "; expected are: ", join(names_, ", "),
                      optional > 0 ? str(" (the last ", optional, " may be left out)") : ""),
                  std::string(op));
}

const ir::Dim& ShapeRule::dim(int input, int i) const {
  const ir::Shape& shape = type(input).shape;
  const int index = i < 0 ? i + static_cast<int>(shape.size()) : i;
  if (index < 0 || index >= static_cast<int>(shape.size())) fail(input, "more dimensions");
  return shape[static_cast<size_t>(index)];
}

void ShapeRule::expect_float(int input) const {
  if (!is_kernel_float(type(input).dtype)) fail(input, "f32, bf16 or f16");
}

void ShapeRule::expect_dtype(int input, ir::DType dtype) const {
  if (type(input).dtype != dtype) fail(input, ir::dtype_name(dtype));
}

void ShapeRule::expect_rank(int input, int rank) const {
  if (type(input).shape.size() != static_cast<size_t>(rank)) {
    fail(input, str(rank, rank == 1 ? " dimension" : " dimensions"));
  }
}

void ShapeRule::expect_min_rank(int input, int rank) const {
  if (type(input).shape.size() < static_cast<size_t>(rank)) {
    fail(input, str("at least ", rank, rank == 1 ? " dimension" : " dimensions"));
  }
}

void ShapeRule::expect_shape(int input, const ir::Shape& shape) const {
  if (type(input).shape != shape) fail(input, str("the shape ", ir::to_string(shape)));
}

void ShapeRule::expect_same_type(int input, int other) const {
  if (type(input) != type(other)) {
    fail(input,
         str(ir::to_string(type(other)), ", the type of ", names_[static_cast<size_t>(other)]));
  }
}

void ShapeRule::fail(int input, const std::string& expected) const {
  throw_bad_input(str(names_[static_cast<size_t>(input)], " is ", ir::to_string(type(input)),
                      "; expected is ", expected),
                  std::string(op_));
}

}  // namespace millrace::ops
