// Queries, keys and values of one attention layer, as checkpoints store their projections.
#pragma once

#include "nn/trace.h"

namespace millrace::nn {

/// q [T, H*D], k [T, G*D], v [T, G*Dv].
struct Qkv {
  Value q, k, v;
};

struct QkvSizes {
  int64_t heads, kv_heads, head_size;  // H, G, D = Dv
  int64_t q() const { return heads * head_size; }
  int64_t kv() const { return kv_heads * head_size; }
  int64_t all() const { return q() + 2 * kv(); }
};

/// Three layers `q_proj`, `k_proj`, `v_proj` below the scope.
Qkv separate_qkv(const Scope& scope, Value x, const QkvSizes& sizes, bool bias);

/// The columns [Q | K | V] of one product [T, sizes.all()].
Qkv split_qkv(Value qkv, const QkvSizes& sizes);

/// One layer whose rows are stored by KV head: its H/G query heads, then its K, then its V, D rows
/// each (GPT-NeoX, BLOOM, Falcon, InternLM 2).
Qkv grouped_qkv(const Scope& scope, Value x, const QkvSizes& sizes, bool bias);

}  // namespace millrace::nn
