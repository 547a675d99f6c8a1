#include "ops/common/sequence_rows.h"

#include <algorithm>

#include "base/error.h"
#include "ops/common/float_types.h"

namespace millrace::ops {
namespace {

constexpr const char* kSequenceInputNames[kNumSequenceInputs] = {
    "sequence_length",   "query_start",       "query_length",          "host_request_types",
    "host_past_lengths", "host_query_length", "kv_cache_block_offsets"};
constexpr size_t kQInput = 0, kFirstSequenceInput = 1;
constexpr int64_t kUsualTokensPerBlock = 64;  // a guess while there is no cache to ask

}  // namespace

SequenceRows::SequenceRows(std::span<const Tensor> in, size_t first)
    : num_sequences(in[first].dim(0)),
      blocks_per_sequence(in[first + kBlockOffsets].dim(2)),
      sequence_length(in[first + kSequenceLength].as<int32_t>()),
      query_start(in[first + kQueryStart].as<int32_t>()),
      query_length(in[first + kQueryLength].as<int32_t>()),
      request_type(in[first + kHostRequestTypes].as<int32_t>()),
      cache(in[first + kNumSequenceInputs].as<KvCacheView>()) {
  block_offsets =
      in[first + kBlockOffsets].as<int32_t>() + cache->group * num_sequences * blocks_per_sequence;
}

void SequenceRows::follow_beams(std::span<const Tensor> last) {
  indirection = last[kCacheIndirection].as<int32_t>();
  slots = last[kSequenceSlots].as<int32_t>();
  positions = last[kCacheIndirection].dim(1);
}

void check_beam_inputs(std::span<const ir::TensorType> in) {
  if (in.size() < kNumBeamInputs) throw_bad_input("the beam inputs are missing");
  const auto last = in.last(kNumBeamInputs);
  const auto check = [](const ir::TensorType& type, const char* name, size_t rank) {
    if (type.dtype == ir::DType::kI32 && type.shape.size() == rank) return;
    throw_bad_input(str(name, " must be i32 of rank ", rank, ", got ", ir::to_string(type)));
  };
  check(last[kCacheIndirection], "cache_indirection", 2);
  check(last[kSequenceSlots], "sequence_slots", 1);
}

void check_sequence_inputs(std::span<const ir::TensorType> in, size_t first) {
  if (in.size() < first + kNumSequenceInputs + 1) {
    throw_bad_input(str("expected the ", int{kNumSequenceInputs},
                        " sequence inputs and a KV cache"
                        " from input ",
                        first, ", got ", in.size(), " inputs"));
  }
  for (size_t i = 0; i < kNumSequenceInputs; ++i) {
    const ir::TensorType& type = in[first + i];
    const size_t rank = i == kBlockOffsets ? 3 : 1;
    if (type.dtype != ir::DType::kI32 || type.shape.size() != rank) {
      throw_bad_input(str(kSequenceInputNames[i], " must be i32 of rank ", rank, ", got ",
                          ir::to_string(type)));
    }
  }
  const ir::TensorType& cache = in[first + kNumSequenceInputs];
  if (cache.dtype != ir::DType::kState) {
    throw_bad_input(str("the KV cache must be a state, got ", ir::to_string(cache)));
  }
}

void check_rows(const ir::TensorType& type, int64_t columns, const char* name) {
  if (!is_kernel_float(type.dtype) || type.shape.size() != 2 || type.shape[1] != ir::Dim(columns)) {
    throw_bad_input(str(name, " must be f32, bf16 or f16 of shape [T, ", columns, "], got ",
                        ir::to_string(type)));
  }
}

void check_vector(const ir::TensorType& type, int64_t size, const char* name) {
  if (!is_kernel_float(type.dtype) || type.shape != ir::Shape{size}) {
    throw_bad_input(
        str(name, " must be f32, bf16 or f16 of shape [", size, "], got ", ir::to_string(type)));
  }
}

void check_heads(int heads, int kv_heads, int head_size, int v_head_size) {
  if (kv_heads < 1 || heads < 1 || heads % kv_heads != 0) {
    throw_bad_input(str(heads, " query heads cannot share ", kv_heads, " KV heads evenly"));
  }
  if (head_size < 1 || head_size > kMaxHeadSize || v_head_size < 1 || v_head_size > kMaxHeadSize) {
    throw_bad_input(
        str("head sizes must be 1 to ", kMaxHeadSize, ", got ", head_size, " and ", v_head_size));
  }
}

VisibleKeys count_visible_keys(const Launch& launch, RequestType type, int window,
                               int sink_tokens) {
  VisibleKeys out;
  const auto visible = [&](int64_t position) {
    const int64_t keys = position + 1;
    return window > 0 ? std::min<int64_t>(keys, int64_t{window} + sink_tokens) : keys;
  };
  const auto host_input = [&](SequenceInput input) {
    return launch.in[kFirstSequenceInput + input].as<int32_t>();
  };
  const int64_t num_sequences = launch.in[kFirstSequenceInput].dim(0);
  const int32_t* types = host_input(kHostRequestTypes);
  const int32_t* past_lengths = host_input(kHostPastLengths);
  const int32_t* query_lengths = host_input(kHostQueryLength);
  if (types == nullptr || past_lengths == nullptr || query_lengths == nullptr) {
    const int64_t rows = launch.in[kQInput].dim(0);
    const int64_t blocks = launch.in[kFirstSequenceInput + kBlockOffsets].dim(2);
    const int64_t longest = visible(blocks * kUsualTokensPerBlock - 1);
    out.rows = static_cast<double>(rows);
    out.per_row = static_cast<double>(rows) * static_cast<double>(longest);
    out.read = static_cast<double>(num_sequences * longest);
    return out;
  }
  for (int64_t s = 0; s < num_sequences; ++s) {
    const int64_t first = past_lengths[s], rows = query_lengths[s];
    if (types[s] != static_cast<int32_t>(type) || rows == 0) continue;
    for (int64_t p = first; p < first + rows; ++p)
      out.per_row += static_cast<double>(visible(p));
    out.read +=
        static_cast<double>(std::min<int64_t>(first + rows, visible(first + rows - 1) + rows - 1));
    out.rows += static_cast<double>(rows);
  }
  return out;
}

}  // namespace millrace::ops
