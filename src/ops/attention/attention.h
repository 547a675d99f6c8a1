// attention: what a model says. It has no tactics of its own: pass lower_attention turns it into
// rope_append, attention_context and attention_generation.
//
//   q: [T, H*D], k: [T, G*D], v: [T, G*Dv]; the sequence inputs (ops/common/sequence_inputs.h); the
//   layer's KV cache (state); angles f32 [T, R] if rotary_dim > 0; q_norm, k_norm: float [D] if
//   qk_norm
//   and with beams cache_indirection i32 [R, N], sequence_slots i32 [S]
//   -> out: q's type [T, H*Dv], the cache after the step (state)
//
// Query head h uses KV head h / (H/G). K and V are appended to the cache as stored there, then
//   p = softmax over visible j of (scale * q_i . k_j),  out_i = sum_j p_ij v_j
// where the query at position i sees keys j <= i, and with a window only those with j > i - window
// or j < sink_tokens.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct Attention {
  static constexpr std::string_view kName = "attention";
  int heads = 0;        // H
  int kv_heads = 0;     // G
  int head_size = 0;    // D, of Q and K
  int v_head_size = 0;  // Dv
  double scale = 0;     // of the logits, usually 1/sqrt(D)
  int rotary_dim = 0;   // R <= D; 0: positions are not rotated
  bool interleaved =
      false;             // RoPE pairs (2i, 2i+1), GPT-J style, instead of (i, i + R/2), NeoX style
  bool qk_norm = false;  // rms_norm of each head of Q and K, before RoPE
  double qk_norm_eps = 1e-6;
  int window = 0;       // 0: all earlier positions are visible
  int sink_tokens = 0;  // positions that stay visible in front of the window
  int beams = 0;        // above 0: of beams that share their past, so many of a request at most
  bool operator==(const Attention&) const = default;
  static constexpr auto fields() {
    using A = Attention;
    return std::tuple{Field{"heads", &A::heads},
                      Field{"kv_heads", &A::kv_heads},
                      Field{"head_size", &A::head_size},
                      Field{"v_head_size", &A::v_head_size},
                      Field{"scale", &A::scale},
                      Field{"rotary_dim", &A::rotary_dim},
                      Field{"interleaved", &A::interleaved},
                      Field{"qk_norm", &A::qk_norm},
                      Field{"qk_norm_eps", &A::qk_norm_eps},
                      Field{"window", &A::window},
                      Field{"sink_tokens", &A::sink_tokens},
                      Field{"beams", &A::beams}};
  }
};

}  // namespace millrace::ops
