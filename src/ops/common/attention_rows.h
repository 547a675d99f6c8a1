// Pieces that vector kernels of attention share (V: ops/common/vec_avx2.h, vec_avx512.h).
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/common/kv_elements.h"
#include "ops/common/sequence_rows.h"
#include "ops/common/vec_math.h"

namespace millrace::ops {

/// The key and the value of one position, and their scales where T has some.
template <typename T>
struct KeySlot {
  const T* k;
  const T* v;
  const float* k_scale;
  const float* v_scale;
};

/// The vectors of one head of a sequence, by position: T is the cache's type.
template <typename V, typename T>
class HeadKeys {
 public:
  HeadKeys(const SequenceRows& sequences, int64_t sequence, int64_t kv_head)
      : sequences_(sequences),
        sequence_(sequence),
        blocks_(sequences.blocks(sequence)),
        tokens_per_block_(sequences.cache->tokens_per_block),
        block_bytes_(sequences.cache->block_bytes),
        k_size_(sequences.cache->k_size),
        v_size_(sequences.cache->v_size),
        k_(sequences.cache->pool + sequences.cache->k_offset +
           kv_head * tokens_per_block_ * k_size_ * static_cast<int64_t>(sizeof(T))),
        v_(sequences.cache->pool + sequences.cache->v_offset +
           kv_head * tokens_per_block_ * v_size_ * static_cast<int64_t>(sizeof(T))),
        kv_head_(kv_head) {}

  /// Calls visit(i, slot) for position + i, i < count.
  template <typename Visit>
  void for_each(int64_t position, int64_t count, const Visit& visit) const {
    if (sequences_.indirection != nullptr) {
      for_each_by_holder(position, count, visit);
      return;
    }
    int64_t block = position / tokens_per_block_, slot = position % tokens_per_block_;
    for (int64_t i = 0; i < count; ++block, slot = 0) {
      const int64_t offset = int64_t{blocks_[block]} * block_bytes_;
      const T* k = reinterpret_cast<const T*>(k_ + offset) + slot * k_size_;
      const T* v = reinterpret_cast<const T*>(v_ + offset) + slot * v_size_;
      const float* k_scale = sequences_.cache->k_scales(blocks_[block], kv_head_);
      const float* v_scale = sequences_.cache->v_scales(blocks_[block], kv_head_);
      for (; slot < tokens_per_block_ && i < count; ++slot, ++i, k += k_size_, v += v_size_)
        visit(i, KeySlot<T>{k, v, k_scale + slot, v_scale + slot});
    }
  }

 private:
  /// Beams: each position may be in the blocks of another sequence.
  template <typename Visit>
  void for_each_by_holder(int64_t position, int64_t count, const Visit& visit) const {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t slot = (position + i) % tokens_per_block_;
      const int64_t offset = sequences_.block(sequence_, position + i) * block_bytes_;
      visit(i, KeySlot<T>{reinterpret_cast<const T*>(k_ + offset) + slot * k_size_,
                          reinterpret_cast<const T*>(v_ + offset) + slot * v_size_,
                          sequences_.k_scale(sequence_, kv_head_, position + i),
                          sequences_.v_scale(sequence_, kv_head_, position + i)});
    }
  }

  const SequenceRows& sequences_;
  int64_t sequence_;
  const int32_t* blocks_;
  int64_t tokens_per_block_, block_bytes_, k_size_, v_size_;
  const std::byte* k_;
  const std::byte* v_;
  int64_t kv_head_;
};

/// Bends logits to cap * tanh(logit / cap). `count` is padded to whole vectors.
template <typename V>
void cap_logits(float cap, int64_t count, float* logits) {
  const V size = V::set(cap);
  for (int64_t i = 0; i < count; i += V::kWidth)
    (size * vec_tanh(V::load(logits + i) / size)).store(logits + i);
}

/// What is subtracted from logits whose largest is `largest`: 0 where a row sees no key yet, since
/// infinities do not cancel.
template <typename V>
V softmax_shift(V largest) {
  return select_less(largest, V::set(-3e38F), V::zero(), largest);
}

}  // namespace millrace::ops
