// The inputs of one step in device memory, and their image in host memory that one copy uploads. A
// stepper has two: while the device works on one, the host fills the other.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"
#include "ops/op.h"
#include "runtime/step.h"

namespace millrace::runtime {

/// Largest sizes of a step's inputs.
struct StepLimits {
  int max_sequences = 0;   // S
  int max_num_tokens = 0;  // T
  int max_logit_rows = 0;  // L
  int max_blocks = 0;      // M, blocks of a sequence
  int num_groups = 0;      // of KV layers
};

/// How a batch lies in the buffers.
struct StepShape {
  int rows = 0;       // T
  int sequences = 0;  // S
  int context_sequences = 0;
  int sampled = 0;       // L of the last head run
  bool adjusts = false;  // a logits processor acts on some row
  int prompt_segments = 0;
  std::vector<int> sampled_sequence;  // [sampled] batch index of each sampled row
  std::vector<int> first_row;         // [S] query_start
};

class StepBuffers {
 public:
  /// Names of the arrays, which are the graph's input names where it has one.
  static constexpr const char* kInputIds = "input_ids";
  static constexpr const char* kSamplingRows = "sampling_rows";
  static constexpr const char* kPromptSegments = "prompt_segments";
  static constexpr const char* kBlockTables = "kv_cache_block_offsets";
  static constexpr const char* kTargets = "targets";
  static constexpr const char* kTargetCounts = "target_counts";

  /// A step's arrays.
  StepBuffers(const StepLimits& limits, device::Device& device);
  /// Others: name and number of 32-bit elements of each.
  struct ArraySize {
    std::string name;
    int64_t count;
  };
  StepBuffers(const std::vector<ArraySize>& arrays, device::Device& device);

  /// Address of an array on the device, or on the host for names with `host_`; null when there is
  /// none of that name.
  void* address(const std::string& name) const;
  /// The host image of an array.
  int32_t* host(const std::string& name);
  int64_t bytes() const { return bytes_; }

  /// Copies everything to the device in one copy; of the block tables, which come last, the first
  /// `table_entries`.
  void upload(int64_t table_entries);
  /// Copies the first `count` elements of one array: for later head runs of the same step.
  void upload(const std::string& name, int64_t count);

 private:
  struct Array {
    int64_t offset = 0;
    int64_t count = 0;  // i32 elements
    bool on_host = false;
  };
  void add(const std::string& name, int64_t count);
  void allocate();

  device::Device& device_;
  std::map<std::string, Array> arrays_;
  int64_t bytes_ = 0;
  std::unique_ptr<device::Memory> host_, device_memory_;
};

}  // namespace millrace::runtime
