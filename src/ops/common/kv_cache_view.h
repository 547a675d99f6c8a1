// One layer's KV cache as attention ops see it: planes inside the blocks of its group's pool. A
// tensor of dtype kState points to one. Strides are fixed when a session is set up, so captured
// launches may copy the whole struct.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ir/dtype.h"

namespace millrace::ops {

/// Whether each vector of a cache of this type has a scale.
inline bool has_scales(ir::DType dtype) {
  return dtype == ir::DType::kI8;
}
/// Bytes that a vector of `size` elements takes, with its scale.
inline int64_t kv_vector_bytes(ir::DType dtype, int64_t size) {
  return size * ir::dtype_size(dtype) +
         (has_scales(dtype) ? static_cast<int64_t>(sizeof(float)) : 0);
}

struct KvCacheView {
  std::byte* pool = nullptr;
  int64_t block_bytes = 0;  // from one block to the next, over all layers of the group
  int64_t k_offset =
      0;  // bytes from the start of a block to this layer's K [kv_heads, tokens_per_block, k_size]
  int64_t v_offset =
      0;  //                                   and to its V [kv_heads, tokens_per_block, v_size]
  int64_t k_scale_offset = 0;  // of i8: to the scales of K, f32 [kv_heads, tokens_per_block]
  int64_t v_scale_offset = 0;  //        and of V
  int32_t tokens_per_block =
      0;  // a power of two when paged; any number when one block holds a sequence
  int32_t kv_heads = 0;
  int32_t k_size = 0, v_size = 0;  // elements of one head's K and V vector
  int32_t group = 0;               // row of kv_cache_block_offsets [groups, S, M]
  ir::DType dtype = ir::DType::kF32;

  /// First element of head `head`'s K vectors in `block`: tokens follow each other k_size elements
  /// apart.
  std::byte* k(int64_t block, int64_t head) const {
    return pool + block * block_bytes + k_offset +
           head * tokens_per_block * k_size * ir::dtype_size(dtype);
  }
  std::byte* v(int64_t block, int64_t head) const {
    return pool + block * block_bytes + v_offset +
           head * tokens_per_block * v_size * ir::dtype_size(dtype);
  }
  /// Of i8: what the elements of head `head`'s vectors in `block` are to be multiplied by.
  float* k_scales(int64_t block, int64_t head) const { return scales(block, head, k_scale_offset); }
  float* v_scales(int64_t block, int64_t head) const { return scales(block, head, v_scale_offset); }

 private:
  float* scales(int64_t block, int64_t head, int64_t offset) const {
    return reinterpret_cast<float*>(pool + block * block_bytes + offset) + head * tokens_per_block;
  }
};

}  // namespace millrace::ops
