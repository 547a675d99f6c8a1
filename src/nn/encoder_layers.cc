#include "nn/encoder_layers.h"

#include "ops/common/sequence_inputs.h"
#include "ops/matmul/matmul.h"
#include "ops/op.h"
#include "ops/sinusoid/sinusoid.h"
#include "ops/unfold_frames/unfold_frames.h"

namespace millrace::nn {
namespace {

template <typename A>
Value add_op(const A& attributes, const std::vector<Value>& inputs) {
  ir::Graph& graph = *inputs[0].graph;
  std::vector<ir::ValueId> ids;
  for (const Value& in : inputs)
    ids.push_back(in.id);
  const ir::NodeId node = ops::add_node(graph, A::kName, std::move(ids), ops::to_attrs(attributes));
  return {&graph, graph.node(node).outputs[0]};
}

}  // namespace

RowOwners owners(const EncoderInputs& inputs) {
  return {inputs.query_start, inputs.query_length};
}

RowOwners owners(const StepInputs& step) {
  return {step.sequence[ops::kQueryStart], step.sequence[ops::kQueryLength]};
}

Value encoder_attention(const ops::AttentionEncoder& attributes, Value q, Value k, Value v,
                        const RowOwners& rows, Value bias) {
  std::vector<Value> inputs = {q, k, v, rows.query_start, rows.query_length};
  if (attributes.relative_buckets > 0) inputs.push_back(bias);
  return add_op(attributes, inputs);
}

Value cross_attention(const ops::AttentionCross& attributes, Value q, const StepInputs& step,
                      size_t cache) {
  const RowOwners rows = owners(step);
  return add_op(attributes, {q, step.encoder_lengths, rows.query_start, rows.query_length,
                             step.sequence[ops::kBlockOffsets], step.kv_caches.at(cache)});
}

Value conv_frames(const Scope& scope, Value x, int64_t out, const RowOwners& rows,
                  Value positions) {
  scope.enter();
  const bool every_second = positions.graph != nullptr;
  std::vector<Value> inputs = {x, rows.query_start, rows.query_length};
  if (every_second) inputs.push_back(positions);
  const int64_t columns = x.dim(-1);
  const Value unfolded = add_op(ops::UnfoldFrames{.stride = every_second ? 2 : 1}, inputs);
  const Value weight = scope.reshaped_weight("weight", {out, columns, 3}, {out, 3 * columns});
  ops::Matmul product{.bias = true};
  product.dtype = ir::dtype_name(scope.trace().activation);
  return add_op(product, {unfolded, weight, scope.weight("bias", {out})});
}

Value sinusoid(const Scope& scope, Value positions, int64_t dim) {
  return add_op(ops::Sinusoid{.dim = static_cast<int>(dim),
                              .dtype = ir::dtype_name(scope.trace().activation)},
                {positions});
}

Value cross_append(const ops::CrossAppend& attributes, Value k, Value v,
                   const EncoderInputs& inputs, size_t layer) {
  return add_op(attributes, {k, v, inputs.query_start, inputs.query_length, inputs.block_offsets,
                             inputs.cross_caches.at(layer)});
}

}  // namespace millrace::nn
