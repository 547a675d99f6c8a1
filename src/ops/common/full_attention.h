// What attention_encoder and attention_cross share: every query of a sequence sees the same keys,
// all of them, wherever they lie.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "ops/common/kv_cache_view.h"
#include "ops/op.h"

namespace millrace::ops {

/// What the attributes of both ops say.
struct FullAttention {
  int heads = 0;
  int kv_heads = 0;
  int head_size = 0;
  int v_head_size = 0;
  float scale = 0;

  template <typename A>
  static FullAttention of(const A& a) {
    return {a.heads, a.kv_heads, a.head_size, a.v_head_size, static_cast<float>(a.scale)};
  }
  int group() const { return heads / kv_heads; }
};

/// The vectors of one head in rows of activations, one after the other. T: their type.
template <typename T>
struct RowKeys {
  const T* k = nullptr;  // of the first key
  const T* v = nullptr;
  int64_t k_stride = 0, v_stride = 0;  // elements from one key to the next

  /// Calls visit(i, k, v) for key first + i, i < count.
  template <typename Visit>
  void for_each(int64_t first, int64_t count, const Visit& visit) const {
    for (int64_t i = 0; i < count; ++i)
      visit(i, k + (first + i) * k_stride, v + (first + i) * v_stride);
  }
};

/// The vectors of one head in the blocks of a sequence. T: the cache's type.
template <typename T>
class BlockKeys {
 public:
  BlockKeys(const KvCacheView& cache, const int32_t* blocks, int64_t kv_head)
      : cache_(cache), blocks_(blocks), kv_head_(kv_head) {}

  template <typename Visit>
  void for_each(int64_t first, int64_t count, const Visit& visit) const {
    const int64_t tokens = cache_.tokens_per_block;
    int64_t block = first / tokens, slot = first % tokens;
    for (int64_t i = 0; i < count; ++block, slot = 0) {
      const auto* k = reinterpret_cast<const T*>(cache_.k(blocks_[block], kv_head_));
      const auto* v = reinterpret_cast<const T*>(cache_.v(blocks_[block], kv_head_));
      for (; slot < tokens && i < count; ++slot, ++i)
        visit(i, k + slot * cache_.k_size, v + slot * cache_.v_size);
    }
  }

 private:
  const KvCacheView& cache_;
  const int32_t* blocks_;
  int64_t kv_head_;
};

/// Which rows of a step are whose. The pointers are to i32 [S].
struct OwnedRows {
  int64_t num_sequences = 0;
  const int32_t* query_start = nullptr;
  const int32_t* query_length = nullptr;

  OwnedRows(const Tensor& start, const Tensor& length)
      : num_sequences(start.dim(0)),
        query_start(start.as<int32_t>()),
        query_length(length.as<int32_t>()) {}

  /// The sequence that owns the row, or -1.
  int64_t owner(int64_t row) const {
    for (int64_t s = 0; s < num_sequences; ++s) {
      const int64_t i = row - query_start[s];
      if (i >= 0 && i < query_length[s]) return s;
    }
    return -1;
  }
};

/// Consecutive rows of one sequence, with one head: a task for a thread.
struct RowTile {
  int64_t sequence = 0;
  int64_t head = 0;
  int64_t first = 0;  // row of the sequence's rows in this step
  int64_t rows = 0;
};

/// All rows and heads of a step, cut into tiles of up to `tile_rows` rows.
class RowTiles {
 public:
  RowTiles(const OwnedRows& rows, int heads, int64_t tile_rows)
      : rows_(rows), heads_(heads), tile_rows_(tile_rows) {
    for (int64_t s = 0; s < rows.num_sequences; ++s)
      count_ += tiles_of(s) * heads;
  }

  int64_t count() const { return count_; }
  RowTile at(int64_t index) const {
    int64_t s = 0;
    for (int64_t tiles; index >= (tiles = tiles_of(s) * heads_); ++s)
      index -= tiles;
    const int64_t first = index / heads_ * tile_rows_;
    return {s, index % heads_, first, std::min(tile_rows_, rows_.query_length[s] - first)};
  }

 private:
  int64_t tiles_of(int64_t s) const {
    return (rows_.query_length[s] + tile_rows_ - 1) / tile_rows_;
  }

  const OwnedRows& rows_;
  int64_t heads_, tile_rows_, count_ = 0;
};

/// The part of the shape rule that both have: heads and scale, q, the rows' owners from
/// `in[owners]`.
void check_full_attention(const FullAttention& shape, std::span<const ir::TensorType> in,
                          size_t owners);

/// Products and bytes for `pairs` of a query and a key it sees, `rows` queries, and `keys` keys
/// that have to be read once each.
Cost full_attention_cost(const FullAttention& shape, const Launch& launch, double pairs,
                         double keys, double key_bytes);

}  // namespace millrace::ops
