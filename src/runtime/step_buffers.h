// The inputs of one step in device memory, and their image in host memory that one launch uploads.
// A stepper has two: while the device works on one, the host fills the other.
#pragma once

#include <algorithm>
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
  int beams = 1;           // of a request
  int vocab_size = 0;
  int prompt_table_rows = 0;  // virtual tokens of a slot

  /// Of the block tables of so many sequences.
  int64_t table_entries(int sequences) const {
    return int64_t{std::max(1, num_groups)} * sequences * std::max(1, max_blocks);
  }
};

/// How a batch lies in the buffers.
struct StepShape {
  int rows = 0;       // T, with padding
  int sequences = 0;  // S, with padding
  int context_sequences = 0;
  int sampled = 0;       // L of the last head run
  bool adjusts = false;  // a logits processor acts on some row
  int length_class = 0;  // ops::length_class() of the longest sequence
  int prompt_segments = 0;
  int beam_requests = 0;              // G, with beams
  std::vector<int> sampled_sequence;  // batch index of each sampled row that is one's
  std::vector<int> first_row;         // query_start of each sequence of the batch
  std::vector<int> beam_sequence;     // [G] batch index of each request's first sequence
};

class StepBuffers {
 public:
  /// Names of the arrays, which are the graph's input names where it has one.
  static constexpr const char* kInputIds = "input_ids";
  static constexpr const char* kSamplingRows = "sampling_rows";
  static constexpr const char* kPromptSegments = "prompt_segments";
  static constexpr const char* kBlockTables = "kv_cache_block_offsets";
  static constexpr const char* kSequenceSlots = "sequence_slots";
  static constexpr const char* kBeams = "beams";
  static constexpr const char* kTargets = "targets";
  static constexpr const char* kTargetCounts = "target_counts";

  /// Name and number of 32-bit elements of an array.
  struct ArraySize {
    std::string name;
    int64_t count;
  };
  using Arrays = std::vector<ArraySize>;
  StepBuffers(const Arrays& arrays, device::Device& device);
  /// With a step's arrays.
  StepBuffers(const StepLimits& limits, device::Device& device)
      : StepBuffers(arrays_of(limits), device) {}

  /// The arrays of a step: as large as these limits allow, and what this step uses on the device.
  static Arrays arrays_of(const StepLimits& limits);
  static Arrays arrays_in_use(const StepShape& shape, const StepLimits& limits);
  /// Bytes of such arrays, which lie on the host and on the device.
  static int64_t bytes_of(const Arrays& arrays);

  /// Address of an array on the device, or on the host for names with `host_`; null when there is
  /// none of that name.
  void* address(const std::string& name) const;
  /// The host image of an array.
  int32_t* host(const std::string& name);
  int64_t bytes() const { return bytes_; }

  /// Begins a step on the device by copying the beginnings of these arrays to it, in one launch.
  /// `begun_ns`: see device::begin_step().
  void begin_step(const Arrays& in_use, int64_t* begun_ns);
  /// Copies the first `count` elements of one array: for later head runs of the same step.
  void upload(const std::string& name, int64_t count);

 private:
  struct Array {
    int64_t offset = 0;
    int64_t count = 0;  // i32 elements
    bool on_host = false;
  };

  device::Device& device_;
  std::map<std::string, Array> arrays_;
  int64_t bytes_ = 0;
  std::unique_ptr<device::Memory> host_, device_memory_;
};

}  // namespace millrace::runtime
