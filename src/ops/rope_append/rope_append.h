// rope_append: normalises and rotates Q and K, and appends K and V to the cache, for every row a
// sequence owns; or for those of the sequences in one phase only.
//
//   qkv: [T, (H + G)*D + G*Dv] (Q, then K, then V) if `packed`, else q [T, H*D], k [T, G*D], v [T,
//   G*Dv]; the sequence inputs; the layer's KV cache (state); angles f32 [T, R] if rotary_dim > 0;
//   q_norm, k_norm: float [D] if qk_norm
//   -> q: the input's type [T, H*D] rotated, the cache after the step (state)
//
// Arithmetic in float; K and V are rounded to the cache's type once. With angle columns c =
// angles[t, i] and s = angles[t, R/2 + i], the pair (a, b) becomes (a c - b s, b c + a s); pairs
// are (i, i + R/2), or (2i, 2i + 1) if `interleaved`; dimensions from R on stay as they are.
#pragma once

#include <string>

#include "ops/attributes.h"

namespace millrace::ops {

struct RopeAppend {
  static constexpr std::string_view kName = "rope_append";
  int heads = 0;
  int kv_heads = 0;
  int head_size = 0;
  int v_head_size = 0;
  int rotary_dim = 0;
  bool interleaved = false;
  bool qk_norm = false;
  double qk_norm_eps = 1e-6;
  double qk_norm_offset = 0;
  bool packed = false;
  std::string phase = "both";  // or "context", "generation": host_request_types
  bool operator==(const RopeAppend&) const = default;
  static constexpr auto fields() {
    using A = RopeAppend;
    return std::tuple{Field{"heads", &A::heads},
                      Field{"kv_heads", &A::kv_heads},
                      Field{"head_size", &A::head_size},
                      Field{"v_head_size", &A::v_head_size},
                      Field{"rotary_dim", &A::rotary_dim},
                      Field{"interleaved", &A::interleaved},
                      Field{"qk_norm", &A::qk_norm},
                      Field{"qk_norm_eps", &A::qk_norm_eps},
                      Field{"qk_norm_offset", &A::qk_norm_offset},
                      Field{"packed", &A::packed},
                      Field{"phase", &A::phase}};
  }
};

}  // namespace millrace::ops
