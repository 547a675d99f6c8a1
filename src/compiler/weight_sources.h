// Where a trace's weights come from: a checkpoint, or nowhere (generated).
#pragma once

#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "compiler/options.h"
#include "engine/plan.h"
#include "nn/trace.h"

namespace millrace::compiler {

/// How a weight is kept: `stored` as the checkpoint has it, unless the compute type is narrower.
/// Vectors (norms, biases) stay in f32 or their own type: they cost nothing and their rounding
/// would show.
ir::DType kept_type(ir::DType stored, size_t rank, ComputeType compute);

class CheckpointWeights : public nn::WeightSource {
 public:
  CheckpointWeights(const Checkpoint& checkpoint, ComputeType compute)
      : checkpoint_(checkpoint), compute_(compute) {}
  bool has(const std::string& name) const override { return checkpoint_.has(name); }
  ir::DType declare(const std::string& name, const std::vector<int64_t>& stored_shape) override;

  /// Tensors that no weight was declared for. Those that match one of `ignored` (ECMAScript regular
  /// expressions) are listed in `skipped`; any other one throws Error.
  void check_all_used(const std::vector<std::string_view>& ignored,
                      std::vector<std::string>* skipped) const;

 private:
  const Checkpoint& checkpoint_;
  ComputeType compute_;
  std::set<std::string> used_;
};

class DummyWeights : public nn::WeightSource {
 public:
  explicit DummyWeights(ComputeType compute) : compute_(compute) {}
  /// Names have no prefixes to choose from: what a model asks about first is not there.
  bool has(const std::string&) const override { return false; }
  ir::DType declare(const std::string&, const std::vector<int64_t>& stored_shape) override {
    return kept_type(ir::DType::kF32, stored_shape.size(), compute_);
  }

 private:
  ComputeType compute_;
};

/// The engine's list of weights, in engine::weight_order. `checkpoint` is null for generated ones.
void list_weights(const Checkpoint* checkpoint, engine::Engine& engine);

}  // namespace millrace::compiler
