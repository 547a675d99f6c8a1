// The inputs of one rope_append launch, found among those that its attributes leave out.
#pragma once

#include "ops/common/sequence_rows.h"
#include "ops/rope_append/rope_append.h"

namespace millrace::ops {

/// Index of each input, or -1 where there is none.
struct RopeAppendInputs {
  int q = 0, k = -1, v = -1;
  int sequence = 0;  // the first of the sequence inputs; the cache follows them
  int cache = 0;
  int angles = -1, q_norm = -1, k_norm = -1;
  int count = 0;

  explicit RopeAppendInputs(const RopeAppend& a) {
    int next = 1;
    if (!a.packed) {
      k = next++;
      v = next++;
    }
    sequence = next;
    cache = next + kNumSequenceInputs;
    next = cache + 1;
    if (a.rotary_dim > 0) angles = next++;
    if (a.qk_norm) {
      q_norm = next++;
      k_norm = next++;
    }
    count = next;
  }
};

/// The rows of Q, K and V: of one tensor or of three.
struct QkvRows {
  const std::byte* q;
  const std::byte* k;
  const std::byte* v;
  int64_t q_stride, k_stride, v_stride;  // elements from one row to the next
  ir::DType dtype;

  QkvRows(std::span<const Tensor> in, const RopeAppend& a, const RopeAppendInputs& at)
      : q(in[static_cast<size_t>(at.q)].as<std::byte>()), dtype(in[0].dtype) {
    const int64_t q_size = int64_t{a.heads} * a.head_size;
    const int64_t k_size = int64_t{a.kv_heads} * a.head_size;
    const int64_t v_size = int64_t{a.kv_heads} * a.v_head_size;
    if (a.packed) {
      k = q + q_size * ir::dtype_size(dtype);
      v = k + k_size * ir::dtype_size(dtype);
      q_stride = k_stride = v_stride = q_size + k_size + v_size;
    } else {
      k = in[static_cast<size_t>(at.k)].as<std::byte>();
      v = in[static_cast<size_t>(at.v)].as<std::byte>();
      q_stride = q_size;
      k_stride = k_size;
      v_stride = v_size;
    }
  }
};

/// Whether the attributes leave a sequence out.
inline bool is_left_out(const RopeAppend& a, RequestType type) {
  if (a.phase == "both") return false;
  return (a.phase == "context") != (type == RequestType::kContext);
}

}  // namespace millrace::ops
