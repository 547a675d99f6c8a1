#include "nn/layers.h"

#include "ops/activation/activation.h"
#include "ops/add/add.h"
#include "ops/add_row/add_row.h"
#include "ops/common/activation_kind.h"
#include "ops/concat/concat.h"
#include "ops/embedding/embedding.h"
#include "ops/gather_rows/gather_rows.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/matmul/matmul.h"
#include "ops/mul/mul.h"
#include "ops/op.h"
#include "ops/rescale/rescale.h"
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

/// Without a bias when that has no graph.
Value product(const Scope& scope, Value x, Value weight, Value bias) {
  ops::Matmul attrs;
  attrs.bias = bias.graph != nullptr;
  attrs.dtype = ir::dtype_name(scope.trace().activation);
  if (!attrs.bias) return add_op(attrs, {x, weight});
  return add_op(attrs, {x, weight, bias});
}

}  // namespace

Value linear(const Scope& scope, Value x, int64_t out, bool bias) {
  scope.enter();
  const Value weight = scope.weight("weight", {out, x.dim(-1)});
  return product(scope, x, weight, bias ? scope.weight("bias", {out}) : Value{});
}

Value linear_rows(const Scope& scope, Value x, int64_t stored_out, const RowRuns& runs, bool bias) {
  scope.enter();
  const Value weight = scope.weight_rows("weight", {stored_out, x.dim(-1)}, runs);
  return product(scope, x, weight, bias ? scope.weight_rows("bias", {stored_out}, runs) : Value{});
}

Value logits(const Scope& scope, Value x, int64_t vocabulary, Value bias) {
  scope.enter();
  scope.trace().hidden = x;
  const Value weight = scope.weight("weight", {vocabulary, x.dim(-1)});
  if (bias.graph == nullptr) return add_op(ops::Matmul{}, {x, weight});
  return add_op(ops::Matmul{.bias = true}, {x, weight, bias});
}

Value unit_rows_logits(const Scope& scope, Value x, int64_t vocabulary) {
  scope.enter();
  scope.trace().hidden = x;
  return add_op(ops::Matmul{}, {x, scope.unit_rows_weight("weight", vocabulary, x.dim(-1))});
}

Value conv1d(const Scope& scope, Value x, int64_t out) {
  scope.enter();
  const Value weight = scope.transposed_weight("weight", out, x.dim(-1));
  return product(scope, x, weight, scope.weight("bias", {out}));
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

Value rms_norm(const Scope& scope, Value x, double eps, double weight_offset) {
  scope.enter();
  return add_op(ops::RmsNorm{.eps = eps, .weight_offset = weight_offset},
                {x, scope.weight("weight", {x.dim(-1)})});
}

Value layer_norm(const Scope& scope, Value x, double eps, const LayerNormOptions& options) {
  scope.enter();
  const int groups = std::max(1, options.groups);
  const ops::LayerNorm attrs{.eps = eps, .weight_offset = options.weight_offset, .groups = groups};
  if (!options.weight) return add_op(attrs, {x});
  std::vector<int64_t> shape = {x.dim(-1) / groups};
  if (options.groups > 0 && !options.shared_weight) shape.insert(shape.begin(), groups);
  const Value weight = scope.weight("weight", shape);
  if (!options.bias) return add_op(attrs, {x, weight});
  return add_op(attrs, {x, weight, scope.weight("bias", shape)});
}

Value layer_norm_of_parts(const Scope& scope, Value x, int64_t parts, double eps) {
  scope.enter();
  ir::Graph& graph = scope.graph();
  std::vector<ir::ValueId> weights;
  for (int64_t i = 0; i < parts; ++i)
    weights.push_back(scope[i].weight("weight", {x.dim(-1) / parts}).id);
  const ir::NodeId all = ops::add_node(graph, ops::Concat::kName, std::move(weights), {});
  return add_op(ops::LayerNorm{.eps = eps, .groups = static_cast<int>(parts)},
                {x, Value{&graph, graph.node(all).outputs[0]}});
}

bool knows_activation(const std::string& kind) {
  return ops::parse_activation(kind).has_value();
}

std::vector<std::string_view> activation_names() {
  return ops::activation_names();
}

Value activation(Value x, const std::string& kind) {
  return add_op(ops::Activation{.kind = kind}, {x});
}

Value scale(Value x, double factor) {
  return factor == 1 ? x : add_op(ops::Rescale{.factor = factor}, {x});
}

Value softcap(Value x, double cap) {
  return add_op(ops::Rescale{.softcap = cap}, {x});
}

Value clamp(Value x, double low, double high) {
  return add_op(ops::Rescale{.low = low, .high = high}, {x});
}

Value add_row(Value x, Value row) {
  return add_op(ops::AddRow{}, {x, row});
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
