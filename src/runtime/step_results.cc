#include "runtime/step_results.h"

#include <algorithm>

#include "base/check.h"
#include "device/transfers.h"
#include "ops/common/sampling_row.h"
#include "runtime/op_calls.h"

namespace millrace::runtime {
namespace {

constexpr int64_t kTimesBytes = 64;

// Elements of each column, 4 bytes each.
std::vector<int64_t> column_sizes(const StepLimits& limits, int max_logprobs) {
  if (limits.beams > 1) {
    const int64_t requests = limits.max_sequences / limits.beams;
    const int64_t places = requests * 2 * limits.beams;
    return {places, places, places, requests};
  }
  const int64_t rows = limits.max_logit_rows, best = rows * max_logprobs;
  return {rows, rows, rows, best, best};
}

}  // namespace

TokenLogprobs LogprobRows::at(size_t row, int top) const {
  TokenLogprobs token{.id = tokens[row], .logprob = logprobs[row], .top = {}};
  const size_t first = row * static_cast<size_t>(columns);
  for (size_t k = first; k < first + static_cast<size_t>(std::max(0, top)); ++k) {
    if (top_ids[k] < 0) break;
    token.top.emplace_back(top_ids[k], top_logprobs[k]);
  }
  return token;
}

int64_t StepResults::bytes_of(const StepLimits& limits, int max_logprobs) {
  int64_t bytes = kTimesBytes;
  for (const int64_t count : column_sizes(limits, max_logprobs))
    bytes += aligned_bytes(count * 4);
  return bytes;
}

StepResults::StepResults(const StepLimits& limits, int max_logprobs, device::Device& device)
    : device_(device), beams_(limits.beams), columns_(max_logprobs) {
  int64_t offset = kTimesBytes;
  for (const int64_t count : column_sizes(limits, max_logprobs)) {
    offsets_.push_back(offset);
    offset += aligned_bytes(count * 4);
  }
  memory_ = device.allocate_host(offset, "step results");
}

void StepResults::end_step(std::span<const ops::Tensor> columns) {
  CHECK(columns.size() <= offsets_.size());
  std::vector<device::TransferPart> parts;
  for (size_t c = 0; c < columns.size(); ++c)
    parts.push_back({memory_->data() + offsets_[c], columns[c].data, columns[c].bytes()});
  device::end_step(device_, parts, &times()[1]);
}

void StepResults::read(const StepShape& shape, int logprobs, StepResult& result) const {
  if (beams_ > 1) {
    read_beams(shape, result);
    return;
  }
  const auto* tokens = column<int32_t>(0);
  const auto* status = column<int32_t>(1);
  const LogprobRows rows{tokens, column<float>(2), column<int32_t>(3), column<float>(4), columns_};
  for (size_t l = 0; l < shape.sampled_sequence.size(); ++l) {
    const int s = shape.sampled_sequence[l];
    TokenLogprobs& token = result.chosen[static_cast<size_t>(s)];
    if (logprobs >= 0) token = rows.at(l, logprobs);
    token.id = tokens[l];
    if (status[l] != ops::kSamplingOk) result.failed_sequences.push_back(s);
  }
}

void StepResults::read_beams(const StepShape& shape, StepResult& result) const {
  const auto places = 2 * static_cast<size_t>(beams_);
  const auto* status = column<int32_t>(3);
  const auto part = [&]<typename T>(const T* all, size_t request) {
    return std::vector<T>(all + request * places, all + (request + 1) * places);
  };
  result.beams.resize(result.chosen.size());
  for (size_t g = 0; g < static_cast<size_t>(shape.beam_requests); ++g) {
    const int s = shape.beam_sequence[g];
    result.beams[static_cast<size_t>(s)] = {part(column<float>(0), g), part(column<int32_t>(1), g),
                                            part(column<int32_t>(2), g)};
    if (status[g] != ops::kSamplingOk) result.failed_sequences.push_back(s);
  }
}

}  // namespace millrace::runtime
