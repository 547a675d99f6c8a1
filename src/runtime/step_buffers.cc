#include "runtime/step_buffers.h"

#include <algorithm>

#include "base/check.h"
#include "ops/common/sampling_row.h"

namespace millrace::runtime {

StepBuffers::StepBuffers(const StepLimits& limits, device::Device& device) : device_(device) {
  const int64_t rows = limits.max_num_tokens;
  const int64_t sequences = limits.max_sequences;
  add(kInputIds, rows);
  add("position_ids", rows);
  for (const char* name :
       {"context_lengths", "sequence_length", "query_start", "query_length", "host_request_types",
        "host_past_key_value_lengths", "host_query_length", "encoder_input_lengths"}) {
    add(name, sequences);
  }
  add("last_token_ids", limits.max_logit_rows);
  add(kTargets, limits.max_logit_rows);
  add(kTargetCounts, limits.max_logit_rows);
  add(kSamplingRows, sequences * ops::kSamplingRowWords);
  add(kPromptSegments, sequences * 4);
  // Last, because it is by far the largest and only its beginning is in use.
  add(kBlockTables,
      int64_t{std::max(1, limits.num_groups)} * sequences * std::max(1, limits.max_blocks));
  allocate();
}

StepBuffers::StepBuffers(const std::vector<ArraySize>& arrays, device::Device& device)
    : device_(device) {
  for (const ArraySize& array : arrays)
    add(array.name, array.count);
  allocate();
}

void StepBuffers::allocate() {
  host_ = device_.allocate_host(bytes_, "step buffers");
  device_memory_ = device_.allocate(bytes_, "step buffers");
}

void StepBuffers::add(const std::string& name, int64_t count) {
  arrays_[name] = {bytes_, count, name.starts_with("host_")};
  bytes_ += (count * static_cast<int64_t>(sizeof(int32_t)) + 63) / 64 * 64;
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

void StepBuffers::upload(int64_t table_entries) {
  const Array& tables = arrays_.at(kBlockTables);
  CHECK(table_entries <= tables.count);
  device_.copy_to_device(device_memory_->data(), host_->data(),
                         tables.offset + table_entries * static_cast<int64_t>(sizeof(int32_t)));
}

void StepBuffers::upload(const std::string& name, int64_t count) {
  const Array& array = arrays_.at(name);
  CHECK(count <= array.count, name, " is too short for ", count);
  device_.copy_to_device(device_memory_->data() + array.offset, host_->data() + array.offset,
                         count * static_cast<int64_t>(sizeof(int32_t)));
}

}  // namespace millrace::runtime
