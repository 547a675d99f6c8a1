// The launches of an engine with ops, tactics and addresses resolved: what a step walks.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"
#include "engine/plan.h"
#include "ops/op.h"

namespace millrace::runtime {

enum class Regime : uint8_t { kContext = 0, kGeneration = 1 };

/// Addresses of all values of the graph for one regime and one set of step buffers.
struct Frame {
  std::vector<void*> values;      // by value id; null: not bound
  std::vector<void*> workspaces;  // by launch
};

/// Bytes of the arena: activations and workspaces of the engine's largest regime.
int64_t arena_bytes(const engine::Engine& engine);

class Program {
 public:
  /// `planned`: the engine's own graph or its encoder. Throws Error when it names an op or a tactic
  /// that this program or this device does not have; `model` is for the message. `planned` must
  /// outlive this.
  Program(const engine::PlannedGraph& planned, const std::string& model, device::Device& device);

  int num_launches() const { return static_cast<int>(launches_.size()); }
  const engine::PlannedGraph& planned() const { return planned_; }

  /// Arena addresses of a regime; inputs and weights are left to bind().
  Frame make_frame(Regime regime, std::byte* arena) const;

  /// Launches [begin, end) that belong to the phases `context` and `generation` say are in the
  /// step.
  struct Range {
    int begin = 0, end = 0;
    bool context = true, generation = true;
  };
  /// Runs them. Returns how many there were; those that go as a chain count as one.
  int run(const Frame& frame, const ir::Bindings& sizes, const Range& range) const;

  /// A launch between two points in the queue's order.
  struct Observation {
    int launch;
    std::unique_ptr<device::Event> begin, end;
  };
  /// Where run() notes every launch, which then goes alone: for `explain --measure`. Null: nowhere.
  std::vector<Observation>* observations = nullptr;

  /// One launch with its tensors at these sizes, for costs and names.
  struct Description {
    const ops::Op* op;
    const ops::Tactic* tactic;
    std::shared_ptr<const void> attributes;
    std::string scope;
    std::vector<ops::Tensor> in, out;
    ops::Cost cost;
  };
  Description describe(int launch, const ir::Bindings& sizes) const;

  /// Launches that go as one: one, or a chain (Tactic::run_chain).
  struct Group {
    const ops::Tactic* tactic;
    size_t count;
    std::array<int, ops::kMaxChain> launches;
  };
  /// What run() enqueues, in order.
  std::vector<Group> groups(const ir::Bindings& sizes, const Range& range) const;

 private:
  /// The first group from launch `*next` on, which moves behind it. A count of 0: there is none.
  Group next_group(const ir::Bindings& sizes, const Range& range, int* next) const;
  struct Choice {
    int64_t max_rows;
    const ops::Tactic* tactic;
  };
  struct Operation {
    const ops::Op* op;
    std::shared_ptr<const void> attributes;
    ir::NodeId node;
    std::string name;      // "matmul model.layers.0.mlp.down_proj"
    int rows_symbol = -1;  // index into symbols_, or -1 when the rows are fixed
    std::vector<Choice> choices;
  };

  /// A launch of a frame and its tensors.
  struct Placed {
    std::vector<ops::Tensor> in, out;
    ops::Launch launch;
  };
  void place(int index, const Frame& frame, const ir::Bindings& sizes, Placed* placed) const;
  int64_t rows(const Operation& op, const ir::Bindings& sizes) const;
  const ops::Tactic* tactic_for(const Operation& op, const ir::Bindings& sizes) const;
  void tensors(const std::vector<ir::ValueId>& ids, const Frame* frame, const ir::Bindings& sizes,
               std::vector<ops::Tensor>* out) const;

  const engine::PlannedGraph& planned_;
  device::Device& device_;
  std::vector<std::string> symbols_;
  std::vector<Operation> launches_;
};

}  // namespace millrace::runtime
