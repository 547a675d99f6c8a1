#include "nn/layers.h"

#include "ops/activation/activation.h"
#include "ops/add/add.h"
#include "ops/common/activation_kind.h"
#include "ops/embedding/embedding.h"
#include "ops/gather_rows/gather_rows.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/matmul/matmul.h"
#include "ops/mul/mul.h"
#include "ops/op.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/slice_cols/slice_cols.h"

namespace millrace::nn {
namespace {

template <typename A>
Value add_op(const A& attrs, std::initializer_list<Value> inputs) {
  ir::Graph& graph = *inputs.begin()->graph;
  std::vector<ir::ValueId> ids;
  for (const Value& in : inputs)
    ids.push_back(in.id);
  const ir::NodeId node = ops::add_node(graph, A::kName, std::move(ids), ops::to_attrs(attrs));
  return {&graph, graph.node(node).outputs[0]};
}

Value product(const Scope& scope, Value x, Value weight, int64_t out, bool bias) {
  ops::Matmul attrs;
  attrs.bias = bias;
  attrs.dtype = ir::dtype_name(scope.trace().activation);
  if (!bias) return add_op(attrs, {x, weight});
  return add_op(attrs, {x, weight, scope.weight("bias", {out})});
}

}  // namespace

Value linear(const Scope& scope, Value x, int64_t out, bool bias) {
  scope.enter();
  return product(scope, x, scope.weight("weight", {out, x.dim(-1)}), out, bias);
}

Value logits(const Scope& scope, Value x, int64_t vocabulary) {
  scope.enter();
  return add_op(ops::Matmul{}, {x, scope.weight("weight", {vocabulary, x.dim(-1)})});
}

Value conv1d(const Scope& scope, Value x, int64_t out) {
  scope.enter();
  return product(scope, x, scope.transposed_weight("weight", out, x.dim(-1)), out, true);
}

Value embedding(const Scope& scope, Value ids, int64_t rows, int64_t dim, int offset) {
  scope.enter();
  ops::Embedding attrs;
  attrs.dtype = ir::dtype_name(scope.trace().activation);
  attrs.offset = offset;
  const Value table = scope.weight("weight", {rows, dim});
  const Trace& trace = scope.trace();
  if (trace.prompt_table_rows == 0 || ids.id != trace.token_ids) return add_op(attrs, {ids, table});
  const ir::ValueId prompts =
      trace.graph.add_input("prompt_table", {ir::DType::kF32, {"R", trace.prompt_table_rows, dim}});
  return add_op(attrs, {ids, table, {&trace.graph, prompts}});
}

Value rms_norm(const Scope& scope, Value x, double eps) {
  scope.enter();
  return add_op(ops::RmsNorm{.eps = eps}, {x, scope.weight("weight", {x.dim(-1)})});
}

Value layer_norm(const Scope& scope, Value x, double eps) {
  scope.enter();
  const Value weight = scope.weight("weight", {x.dim(-1)});
  return add_op(ops::LayerNorm{.eps = eps}, {x, weight, scope.weight("bias", {x.dim(-1)})});
}

bool knows_activation(const std::string& kind) {
  return ops::parse_activation(kind).has_value();
}

Value activation(Value x, const std::string& kind) {
  return add_op(ops::Activation{.kind = kind}, {x});
}

Value slice_cols(Value x, int64_t begin, int64_t end) {
  return add_op(ops::SliceCols{.begin = static_cast<int>(begin), .end = static_cast<int>(end)},
                {x});
}

Value gather_rows(Value x, Value rows) {
  return add_op(ops::GatherRows{}, {x, rows});
}

Value operator+(Value a, Value b) {
  return add_op(ops::Add{}, {a, b});
}

Value operator*(Value a, Value b) {
  return add_op(ops::Mul{}, {a, b});
}

}  // namespace millrace::nn
