// The sequence inputs of one launch (ops/common/sequence_inputs.h) as pointers, and the shape rule
// that all ops with these inputs share.
#pragma once

#include <cstdint>
#include <span>

#include "ops/common/kv_cache_view.h"
#include "ops/common/sequence_inputs.h"
#include "ops/op.h"

namespace millrace::ops {

enum class RequestType : int32_t { kContext = 0, kGeneration = 1 };

/// What the sequences of a step bring and where their keys and values are.
struct SequenceRows {
  int64_t num_sequences = 0;
  int64_t blocks_per_sequence = 0;           // M
  const int32_t* sequence_length = nullptr;  // [S]
  const int32_t* query_start = nullptr;      // [S]
  const int32_t* query_length = nullptr;     // [S]
  const int32_t* request_type = nullptr;     // [S]
  const int32_t* block_offsets = nullptr;    // [S, M] of the cache's group
  const KvCacheView* cache = nullptr;
  // Of beams (BeamInput); null: every sequence has its past in its own blocks.
  const int32_t* indirection = nullptr;  // [R, positions]
  const int32_t* slots = nullptr;        // [S]
  int64_t positions = 0;                 // N

  /// `in[first]` is the first sequence input, `in[first + kNumSequenceInputs]` the cache.
  SequenceRows(std::span<const Tensor> in, size_t first);

  /// `last`: the beam inputs.
  void follow_beams(std::span<const Tensor> last);

  bool is(int64_t sequence, RequestType type) const {
    return request_type[sequence] == static_cast<int32_t>(type);
  }
  /// Position of the sequence's first row of this step.
  int64_t first_position(int64_t sequence) const {
    return sequence_length[sequence] - query_length[sequence];
  }
  const int32_t* blocks(int64_t sequence) const {
    return block_offsets + sequence * blocks_per_sequence;
  }
  /// The sequence in whose blocks this one finds a position.
  int64_t holder(int64_t sequence, int64_t position) const {
    if (indirection == nullptr) return sequence;
    return sequence + indirection[slots[sequence] * positions + position];
  }
  int64_t block(int64_t sequence, int64_t position) const {
    return blocks(holder(sequence, position))[position / cache->tokens_per_block];
  }
  std::byte* k(int64_t sequence, int64_t head, int64_t position) const {
    const int64_t slot = position % cache->tokens_per_block;
    return cache->k(block(sequence, position), head) +
           slot * cache->k_size * ir::dtype_size(cache->dtype);
  }
  std::byte* v(int64_t sequence, int64_t head, int64_t position) const {
    const int64_t slot = position % cache->tokens_per_block;
    return cache->v(block(sequence, position), head) +
           slot * cache->v_size * ir::dtype_size(cache->dtype);
  }
  /// Of i8: what the elements of these vectors are to be multiplied by.
  float* k_scale(int64_t sequence, int64_t head, int64_t position) const {
    return cache->k_scales(block(sequence, position), head) + position % cache->tokens_per_block;
  }
  float* v_scale(int64_t sequence, int64_t head, int64_t position) const {
    return cache->v_scales(block(sequence, position), head) + position % cache->tokens_per_block;
  }
};

/// Throws Error unless `in[first]` and those after it are the sequence inputs and a KV cache.
void check_sequence_inputs(std::span<const ir::TensorType> in, size_t first);

/// Throws Error unless the last inputs are the beam inputs.
void check_beam_inputs(std::span<const ir::TensorType> in);

/// Throws Error unless the tensor is a float matrix [T, columns]; `name` is the input's.
void check_rows(const ir::TensorType& type, int64_t columns, const char* name);

/// Throws Error unless the tensor is a float vector [size].
void check_vector(const ir::TensorType& type, int64_t size, const char* name);

/// Throws Error unless the head counts and sizes are ones that attention ops can work with.
void check_heads(int heads, int kv_heads, int head_size, int v_head_size);

/// The largest head that scalar code keeps on its stack.
inline constexpr int kMaxHeadSize = 1024;

/// Keys that the rows of this type see, summed over the rows of one head, and the keys that have to
/// be read for them, each once per sequence: exact when the inputs are there, else the most that
/// fits.
struct VisibleKeys {
  double per_row = 0;
  double read = 0;
  double rows = 0;
};
VisibleKeys count_visible_keys(const Launch& launch, RequestType type, int window, int sink_tokens);

}  // namespace millrace::ops
