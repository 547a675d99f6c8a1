// The contract every op folder fulfils: attributes, shape rule, and ways to run it (tactics) as
// data.
//
// A folder src/ops/NAME/ holds
//   NAME.h           the attributes as a plain struct with kName and fields(); shapes and formula
//                    in its comment
//   NAME.cc          shape rule, cost, and `const Op& op_NAME()` with the tactics in order of
//                    preference, reference last
//   NAME_ref.cc      the reference: scalar code that is the specification, also the last CPU tactic
//   NAME_avx2.cc, NAME_avx512.cc, NAME_cpu.cc
//                    faster CPU tactics; the suffix chooses the compiler's flags
//   NAME_cuda.cu     CUDA tactics
//   NAME_cases.cc    the cases that test and time every tactic (ops/harness/cases.h)
//   NAME_test.cc     the reference against numbers from elsewhere
//
// Memory: outputs, states and workspace are 64-byte aligned, inputs by their element only (weights
// lie in files as they lie). Nothing outside a tensor is read or written. Tactics that need more
// say so in why_not.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "device/device.h"
#include "ir/graph.h"

namespace millrace::ops {

inline constexpr int kMaxRank = 5;

/// A dense row-major tensor in device memory (host memory for `host_` inputs). `data` is null while
/// tactics are being chosen. A tensor of dtype kState points to a KvCacheView
/// (ops/common/kv_cache_view.h).
struct Tensor {
  void* data = nullptr;
  ir::DType dtype = ir::DType::kF32;
  int rank = 0;
  std::array<int64_t, kMaxRank> dims = {};

  Tensor() = default;
  Tensor(void* pointer, ir::DType type, std::span<const int64_t> shape);

  int64_t dim(int i) const { return dims[static_cast<size_t>(i < 0 ? i + rank : i)]; }
  /// Elements; 1 for a scalar.
  int64_t count() const;
  int64_t bytes() const { return count() * ir::dtype_size(dtype); }
  /// Elements divided by the last dimension.
  int64_t rows() const { return rank == 0 ? 1 : count() / (dim(-1) == 0 ? 1 : dim(-1)); }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

/// One call of an op: tensors with the sizes of this step, parsed attributes, scratch memory, and
/// where it runs.
struct Launch {
  std::span<const Tensor> in;
  std::span<const Tensor> out;
  const void* attributes = nullptr;
  void* workspace = nullptr;  // Tactic::workspace bytes, 64-byte aligned
  device::Queue* queue = nullptr;

  template <typename A>
  const A& attrs() const {
    return *static_cast<const A*>(attributes);
  }
  ThreadPool& pool() const { return *queue->pool; }
};

/// What an op must move and compute, whatever the tactic: for rooflines and for a first guess.
struct Cost {
  double bytes = 0;  // read and written once
  double flops = 0;
};

/// Launches of one chain (Tactic::run_chain).
inline constexpr int kMaxChain = 8;

/// One way to run an op.
struct Tactic {
  const char* name =
      nullptr;  // "matmul_rows_avx2": also in logs, engine files and the timing cache
  device::Kind device = device::Kind::kCpu;
  /// Empty when it can run this launch (data pointers are null here), else the reason.
  std::string (*why_not)(const Launch&, const device::Properties&) = nullptr;  // null: always can
  int64_t (*workspace)(const Launch&, const device::Properties&) = nullptr;    // null: none
  /// Enqueues (CPU: computes). Never allocates, never throws for reasons of data.
  void (*run)(const Launch&) = nullptr;
  /// A row of the result has the same bits in any batch. Deterministic engines take no other.
  bool batch_invariant = true;
  /// The launch behind it may begin while its last blocks run. Not so kernels of a library that
  /// know nothing of dependents.
  bool lets_next_start = true;
  /// Enqueues consecutive launches of the op, at most kMaxChain, as one; why_not holds for each.
  /// Each reads what those before it wrote, and memory is planned for one after the other: a launch
  /// has its outputs and its workspace from the end of the one before on, the workspace to its own
  /// end. A tactic that has this is for chains: it runs one launch, but is not chosen for it.
  void (*run_chain)(std::span<const Launch>) = nullptr;
};

/// In which of the two regimes a node runs: steps that hold prompts, steps that hold generated
/// tokens.
enum class Phase : uint8_t { kBoth, kContext, kGeneration };

struct Op {
  const char* name = nullptr;
  std::span<const Tactic> tactics = {};  // preference order; the reference is the last CPU tactic
  /// Output types from input types. Throws Error when the inputs do not fit; the message names the
  /// input.
  std::vector<ir::TensorType> (*infer)(std::span<const ir::TensorType>, const ir::Attrs&) = nullptr;
  /// The attributes as the op's own struct. Throws Error on an unknown name or a wrong type.
  std::shared_ptr<const void> (*parse_attrs)(const ir::Attrs&) = nullptr;
  /// May read `host_` inputs when their data is there (attention's work depends on lengths), else
  /// takes maxima.
  Cost (*cost)(const Launch&) = nullptr;
  /// Element `index` of output 0 in float64, from the inputs of a launch with data: for spot checks
  /// of tactics. Null when outputs have no simple closed form.
  double (*exact)(const Launch&, int64_t index) = nullptr;
  Phase phase = Phase::kBoth;
  /// Input whose memory output 0 reuses (it writes rows the input leaves free), or -1.
  int alias_input = -1;
};

/// The op with this name, or null.
const Op* find_op(std::string_view name);
/// All ops, sorted by name.
std::span<const Op* const> all_ops();

/// Appends a node with the outputs its shape rule gives; the rule's Error gets the scope as
/// context.
ir::NodeId add_node(ir::Graph& graph, std::string_view op, std::vector<ir::ValueId> inputs,
                    ir::Attrs attrs);

}  // namespace millrace::ops
