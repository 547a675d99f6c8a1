#include "nn/trace.h"

#include <optional>

#include "base/str.h"

namespace millrace::nn {

int64_t Value::dim(int i) const {
  const ir::Shape& shape = type().shape;
  const int rank = static_cast<int>(shape.size());
  return shape[static_cast<size_t>(i < 0 ? i + rank : i)].value();
}

Scope Scope::operator[](std::string_view name) const {
  return Scope(*trace_, this->name(name));
}

Scope Scope::operator[](int64_t index) const {
  return Scope(*trace_, name(str(index)));
}

std::string Scope::name(std::string_view leaf) const {
  return prefix_.empty() ? std::string(leaf) : str(prefix_, ".", leaf);
}

namespace {

Value add_weight(Trace& trace, const std::string& name, const std::vector<int64_t>& stored_shape,
                 bool transposed) {
  ir::TensorType type{trace.weights.declare(name, stored_shape), {}};
  for (const int64_t dim : stored_shape)
    type.shape.emplace_back(dim);
  ir::Attrs attrs;
  attrs.set("name", name);
  if (transposed) {
    attrs.set("transposed", true);
    std::swap(*(type.shape.end() - 2), type.shape.back());
  }
  return {&trace.graph, trace.graph.add(std::string(ir::kWeightOp), {}, type, std::move(attrs))};
}

}  // namespace

Value Scope::weight(std::string_view leaf, const std::vector<int64_t>& shape) const {
  return add_weight(*trace_, name(leaf), shape, false);
}

Value Scope::weight_rows(std::string_view leaf, std::vector<int64_t> stored_shape,
                         const RowRuns& runs) const {
  const std::string stored_name = name(leaf);
  const ir::DType dtype = trace_->weights.declare(stored_name, stored_shape);
  ir::Attrs attrs;
  attrs.set("name", str(stored_name, '@', runs.first, ',', runs.count, ',', runs.stride, ',',
                        runs.pieces, ',', stored_shape[0]));
  stored_shape[0] = runs.count * runs.pieces;
  ir::TensorType type{dtype, {}};
  for (const int64_t dim : stored_shape)
    type.shape.emplace_back(dim);
  return {&graph(), graph().add(std::string(ir::kWeightOp), {}, type, std::move(attrs))};
}

Value Scope::reshaped_weight(std::string_view leaf, const std::vector<int64_t>& stored_shape,
                             const std::vector<int64_t>& shape) const {
  ir::TensorType type{trace_->weights.declare(name(leaf), stored_shape), {}};
  for (const int64_t dim : shape)
    type.shape.emplace_back(dim);
  ir::Attrs attrs;
  attrs.set("name", name(leaf));
  return {&graph(), graph().add(std::string(ir::kWeightOp), {}, type, std::move(attrs))};
}

Value Scope::stacked_weights(const std::vector<std::string>& leaves,
                             const std::vector<int64_t>& shape) const {
  std::vector<std::string> names;
  std::optional<ir::DType> dtype;
  for (const std::string& leaf : leaves) {
    names.push_back(name(leaf));
    const ir::DType kept = trace_->weights.declare(names.back(), shape);
    // Where they differ, in the type that holds them all.
    dtype = dtype.value_or(kept) == kept ? kept : ir::DType::kF32;
  }
  ir::TensorType type{dtype.value(), {}};
  for (const int64_t dim : shape)
    type.shape.emplace_back(dim);
  type.shape[0] = shape[0] * static_cast<int64_t>(leaves.size());
  ir::Attrs attrs;
  attrs.set("name", join(names, "|"));
  attrs.set("rows", std::vector<double>(leaves.size(), static_cast<double>(shape[0])));
  return {&graph(), graph().add(std::string(ir::kWeightOp), {}, type, std::move(attrs))};
}

Value Scope::unit_rows_weight(std::string_view leaf, int64_t rows, int64_t k) const {
  const Value weight = add_weight(*trace_, name(leaf), {rows, k}, false);
  graph().node(graph().value(weight.id).producer).attrs.set("unit_rows", true);
  return weight;
}

Value Scope::transposed_weight(std::string_view leaf, int64_t n, int64_t k) const {
  return add_weight(*trace_, name(leaf), {k, n}, true);
}

Value Scope::transposed_weights(std::string_view leaf, int64_t count, int64_t n, int64_t k) const {
  return add_weight(*trace_, name(leaf), {count, k, n}, true);
}

}  // namespace millrace::nn
