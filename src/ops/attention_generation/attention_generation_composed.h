// Launches with `append` for tactics that only attend: rope_append runs first, over the rows of
// generation sequences, and what it makes of q lies in front of the workspace.
#pragma once

#include <memory>
#include <vector>

#include "ops/attention_generation/attention_generation.h"
#include "ops/op.h"

namespace millrace::ops {

/// A launch divided into both. Refers to the launch's tensors. Launches without `append` stay as
/// they are.
class ComposedGeneration {
 public:
  explicit ComposedGeneration(const Launch& launch);
  ComposedGeneration(const ComposedGeneration&) = delete;
  ComposedGeneration& operator=(const ComposedGeneration&) = delete;

  /// Without `append`. Its workspace begins behind the rotated q.
  const Launch& attention() const { return attention_; }
  /// Bytes of the rotated q.
  int64_t bytes() const { return bytes_; }
  /// Runs rope_append, by its first tactic for the device or, on a CPU, the reference.
  void append() const;

 private:
  Launch attention_;
  std::vector<Tensor> attention_in_;
  AttentionGeneration attention_attributes_;
  Launch append_;
  std::vector<Tensor> append_in_, append_out_;
  std::shared_ptr<const void> append_attributes_;
  int64_t bytes_ = 0;
};

/// Tactic::why_not, workspace and run of a kernel that only attends.
template <auto kWhyNot>
std::string composed_why_not(const Launch& launch, const device::Properties& device) {
  return kWhyNot(ComposedGeneration(launch).attention(), device);
}
template <auto kWorkspace>
int64_t composed_workspace(const Launch& launch, const device::Properties& device) {
  const ComposedGeneration composed(launch);
  return composed.bytes() + kWorkspace(composed.attention(), device);
}
template <auto kRun>
void run_composed(const Launch& launch) {
  const ComposedGeneration composed(launch);
  composed.append();
  kRun(composed.attention());
}

}  // namespace millrace::ops
