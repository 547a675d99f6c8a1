#include "runtime/step_buffers.h"

#include "base/check.h"
#include "device/transfers.h"
#include "ops/common/beam_row.h"
#include "ops/common/sampling_row.h"

namespace millrace::runtime {
namespace {

// Arrays begin at multiples of 64 bytes.
int64_t array_bytes(int64_t count) {
  return (count * static_cast<int64_t>(sizeof(int32_t)) + 63) / 64 * 64;
}

}  // namespace

StepBuffers::Arrays StepBuffers::arrays_of(const StepLimits& limits) {
  const int64_t rows = limits.max_num_tokens, sequences = limits.max_sequences;
  Arrays arrays = {{kInputIds, rows}, {"position_ids", rows}};
  for (const char* name : {"context_lengths", "sequence_length", "query_start", "query_length",
                           "encoder_input_lengths", "host_request_types",
                           "host_past_key_value_lengths", "host_query_length"}) {
    arrays.push_back({name, sequences});
  }
  arrays.push_back({"last_token_ids", limits.max_logit_rows});
  arrays.push_back({kTargets, limits.max_logit_rows});
  arrays.push_back({kTargetCounts, limits.max_logit_rows});
  arrays.push_back({kSamplingRows, sequences * ops::kSamplingRowWords});
  arrays.push_back({kPromptSegments, sequences * 4});
  arrays.push_back({kSequenceSlots, sequences});
  if (limits.beams > 1) arrays.push_back({kBeams, sequences * ops::kBeamRowWords});
  arrays.push_back({kBlockTables, limits.table_entries(limits.max_sequences)});
  return arrays;
}

StepBuffers::Arrays StepBuffers::arrays_in_use(const StepShape& shape, const StepLimits& limits) {
  Arrays arrays = {{kInputIds, shape.rows}, {"position_ids", shape.rows}};
  for (const char* name : {"context_lengths", "sequence_length", "query_start", "query_length",
                           "encoder_input_lengths", kSequenceSlots}) {
    arrays.push_back({name, shape.sequences});
  }
  // The arrays of the head belong to the sampled rows; rows with targets use them afterwards.
  arrays.push_back({"last_token_ids", shape.sampled});
  arrays.push_back({kTargetCounts, shape.sampled});
  arrays.push_back({kSamplingRows, int64_t{shape.sampled} * ops::kSamplingRowWords});
  arrays.push_back({kPromptSegments, int64_t{shape.prompt_segments} * 4});
  if (shape.beam_requests > 0) {
    arrays.push_back({kBeams, int64_t{shape.beam_requests} * ops::kBeamRowWords});
  }
  arrays.push_back({kBlockTables, limits.table_entries(shape.sequences)});
  return arrays;
}

int64_t StepBuffers::bytes_of(const Arrays& arrays) {
  int64_t bytes = 0;
  for (const ArraySize& array : arrays)
    bytes += array_bytes(array.count);
  return bytes;
}

StepBuffers::StepBuffers(const Arrays& arrays, device::Device& device) : device_(device) {
  for (const auto& [name, count] : arrays) {
    arrays_[name] = {bytes_, count, name.starts_with("host_")};
    bytes_ += array_bytes(count);
  }
  host_ = device_.allocate_host(bytes_, "step buffers");
  device_memory_ = device_.allocate(bytes_, "step buffers");
}

void* StepBuffers::address(const std::string& name) const {
  const auto it = arrays_.find(name);
  if (it == arrays_.end()) return nullptr;
  const device::Memory& memory = it->second.on_host ? *host_ : *device_memory_;
  return memory.data() + it->second.offset;
}

int32_t* StepBuffers::host(const std::string& name) {
  return reinterpret_cast<int32_t*>(host_->data() + arrays_.at(name).offset);
}

void StepBuffers::begin_step(const Arrays& in_use, int64_t* begun_ns) {
  std::vector<device::TransferPart> parts;
  for (const auto& [name, count] : in_use) {
    const Array& array = arrays_.at(name);
    CHECK(count <= array.count, name, " is too short for ", count);
    if (count == 0) continue;
    parts.push_back({device_memory_->data() + array.offset, host_->data() + array.offset,
                     count * static_cast<int64_t>(sizeof(int32_t))});
  }
  device::begin_step(device_, parts, begun_ns);
}

void StepBuffers::upload(const std::string& name, int64_t count) {
  const Array& array = arrays_.at(name);
  CHECK(count <= array.count, name, " is too short for ", count);
  device_.copy_to_device(device_memory_->data() + array.offset, host_->data() + array.offset,
                         count * static_cast<int64_t>(sizeof(int32_t)));
}

}  // namespace millrace::runtime
