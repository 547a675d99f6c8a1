#include "ops/op.h"

#include <algorithm>

#include "base/error.h"

namespace millrace::ops {

// Declared here, defined in each op's folder; the list is made by cmake/discover.cmake from the
// folder names.
#define MILLRACE_OP(name) const Op& op_##name();
#include "gen/op_list.inc"
#undef MILLRACE_OP

Tensor::Tensor(void* pointer, ir::DType type, std::span<const int64_t> shape)
    : data(pointer), dtype(type), rank(static_cast<int>(shape.size())) {
  CHECK(rank <= kMaxRank, "a tensor of rank ", rank);
  std::copy(shape.begin(), shape.end(), dims.begin());
}

int64_t Tensor::count() const {
  int64_t product = 1;
  for (int i = 0; i < rank; ++i)
    product *= dims[static_cast<size_t>(i)];
  return product;
}

std::span<const Op* const> all_ops() {
  static const std::vector<const Op*> ops = {
#define MILLRACE_OP(name) &op_##name(),
#include "gen/op_list.inc"
#undef MILLRACE_OP
  };
  return ops;
}

const Op* find_op(std::string_view name) {
  const auto ops = all_ops();
  const auto it = std::lower_bound(ops.begin(), ops.end(), name,
                                   [](const Op* op, std::string_view n) { return op->name < n; });
  return it != ops.end() && name == (*it)->name ? *it : nullptr;
}

ir::NodeId add_node(ir::Graph& graph, std::string_view op, std::vector<ir::ValueId> inputs,
                    ir::Attrs attrs) {
  const Op* found = find_op(op);
  CHECK(found != nullptr, "no op is called ", op);
  std::vector<ir::TensorType> types;
  for (const ir::ValueId in : inputs)
    types.push_back(graph.type(in));
  std::vector<ir::TensorType> outputs;
  try {
    outputs = found->infer(types, attrs);
  } catch (Error& error) {
    error.add_context(graph.scope().empty() ? std::string(op) : graph.scope());
    throw;
  }
  ir::Node node{std::string(op), std::move(inputs), {}, std::move(attrs), ""};
  return graph.add(std::move(node), outputs);
}

}  // namespace millrace::ops
