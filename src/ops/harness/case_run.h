// One case made ready to launch: its contents, and buffers that hold them on a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "device/device.h"
#include "ops/harness/cases.h"
#include "ops/harness/guarded_buffer.h"
#include "ops/op.h"

namespace millrace::ops {

/// What the inputs of a case hold, the same for every tactic and on every machine, and the types of
/// its outputs.
class CaseData {
 public:
  /// kHost: of inputs in host memory only, which cost() reads.
  enum Contents { kShapes, kHost, kFilled };
  CaseData(const Op& op, const Case& c, Contents contents = kFilled);

  const Op& op;
  const Case& source;
  std::vector<std::vector<std::byte>> inputs;  // of a state: its pool
  std::vector<KvCacheView> views;              // by input; used where it is a state
  std::vector<Tensor> in, out;                 // without data: for why_not, workspace and cost

  /// A launch without data.
  Launch shape_launch() const;
  /// Of the contents, as far as they are in host memory; zeros when the op does not say.
  Cost cost() const;
  /// The first state among the inputs, or -1. Outputs of type kState are the same state afterwards.
  int state_input() const;

 private:
  std::shared_ptr<const void> attributes_;
};

/// The last CPU tactic, or null when the op has none.
const Tactic* reference_tactic(const Op& op);

/// Bytes of one output, or of the state behind an output of type kState, after a run.
struct OutputImage {
  ir::DType dtype = ir::DType::kF32;
  bool is_state = false;
  /// Of a state: the case's own, which can be gigabytes.
  std::shared_ptr<const std::vector<std::byte>> before;
  std::vector<std::byte> after;
};

/// Buffers for one case and one tactic, and a queue to run it on.
class CaseRun {
 public:
  /// `threads`: of the CPU queue; `shift`: inputs begin that many elements past a 64-byte boundary.
  struct Placement {
    device::Queue queue;
    int threads = 1;
    int shift = 0;
  };
  CaseRun(const CaseData& data, const Tactic& tactic, device::Device& device,
          const Placement& placement);
  CaseRun(const CaseRun&) = delete;
  CaseRun& operator=(const CaseRun&) = delete;

  /// Inputs and states as the case has them, outputs and workspace poisoned.
  void reset();
  void run();
  /// What run() hands to the tactic. The spans in it belong to this object.
  Launch launch();
  /// What is wrong about the memory around the outputs, and with the inputs; empty when nothing is.
  std::string damage() const;
  /// Not to be used after the case's data have gone.
  std::vector<OutputImage> outputs() const;

 private:
  void add_input(size_t i, const Placement& placement);
  void add_output(size_t i);

  const CaseData& data_;
  const Tactic& tactic_;
  device::Device& device_;
  device::Queue queue_;
  std::vector<std::unique_ptr<GuardedBuffer>> inputs_;
  std::vector<std::unique_ptr<GuardedBuffer>> outputs_;  // null: shares an input's memory
  std::unique_ptr<GuardedBuffer> workspace_;
  std::deque<KvCacheView> views_;
  std::vector<Tensor> in_, out_;
  std::unique_ptr<device::Device> host_;  // for host_ inputs on other devices
};

/// Bytes that no result has by chance: NaN for floats, 0x7f for integers.
std::byte poison_byte(ir::DType dtype);

}  // namespace millrace::ops
