// The state of a trace: the graph being written and where weights come from.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace millrace::nn {

/// A value of the graph being traced.
struct Value {
  ir::Graph* graph = nullptr;
  ir::ValueId id = ir::kNone;

  const ir::TensorType& type() const { return graph->type(id); }
  /// Dimension i from the front, or from the back when negative. REQUIRES: it is a number.
  int64_t dim(int i) const;
};

/// Tells whether the checkpoint has a tensor and how it is stored. Shapes are checked against what
/// the model says.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual bool has(const std::string& name) const = 0;
  /// The type in which the weight will be kept. Throws Error when it is missing or has another
  /// shape than `stored_shape`.
  virtual ir::DType declare(const std::string& name, const std::vector<int64_t>& stored_shape) = 0;
};

/// What forward() and prepare_inputs() write into.
struct Trace {
  ir::Graph& graph;
  WeightSource& weights;
  ir::DType activation = ir::DType::kF32;  // type of the values between the layers
  ir::DType asked = ir::DType::kF32;  // that of `--dtype`; on a CPU, activations are floats anyhow
  // Prompt tuning: embeddings of these ids know virtual tokens, so many of a sequence.
  ir::ValueId token_ids = ir::kNone;
  int64_t prompt_table_rows = 0;
  Value
      hidden{};  // [T, dim]: the last hidden states; what the head reads, unless a model says else
};

/// Which rows of a stored tensor make a weight: `pieces` runs of `count` rows, the first at row
/// `first` and each `stride` rows after the one before.
struct RowRuns {
  int64_t first, count, stride, pieces;
};

/// A position in the checkpoint's name space: `s["q_proj"]` names tensors exactly as the checkpoint
/// does.
class Scope {
 public:
  explicit Scope(Trace& trace, std::string prefix = "")
      : trace_(&trace), prefix_(std::move(prefix)) {}

  Scope operator[](std::string_view name) const;
  Scope operator[](int64_t index) const;

  /// The full name of a tensor below this position.
  std::string name(std::string_view leaf) const;
  bool has(std::string_view leaf) const { return trace_->weights.has(name(leaf)); }
  /// A weight [shape], stored that way.
  Value weight(std::string_view leaf, const std::vector<int64_t>& shape) const;
  /// Some rows of a tensor stored as [rows, ...]; its name in the graph says which
  /// ("NAME@FIRST,COUNT,STRIDE,PIECES,ROWS").
  Value weight_rows(std::string_view leaf, std::vector<int64_t> stored_shape,
                    const RowRuns& runs) const;
  /// A weight [shape] that the checkpoint stores with the same elements in another shape.
  Value reshaped_weight(std::string_view leaf, const std::vector<int64_t>& stored_shape,
                        const std::vector<int64_t>& shape) const;
  /// Tensors of one shape, stacked along dimension 0: one weight of the graph.
  Value stacked_weights(const std::vector<std::string>& leaves,
                        const std::vector<int64_t>& shape) const;
  /// A weight [rows, K] whose rows are divided by their Euclidean length.
  Value unit_rows_weight(std::string_view leaf, int64_t rows, int64_t k) const;
  /// A weight [N, K] that the checkpoint stores as [K, N] (GPT-2's Conv1D).
  Value transposed_weight(std::string_view leaf, int64_t n, int64_t k) const;
  /// Weights [count, N, K] that the checkpoint stores as one tensor [count, K, N].
  Value transposed_weights(std::string_view leaf, int64_t count, int64_t n, int64_t k) const;

  Trace& trace() const { return *trace_; }
  ir::Graph& graph() const { return trace_->graph; }
  /// Marks nodes made from here on as belonging to this scope, for dumps and profiles.
  void enter() const { trace_->graph.set_scope(prefix_); }

 private:
  Trace* trace_;
  std::string prefix_;
};

}  // namespace millrace::nn
