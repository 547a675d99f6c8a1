// attention: what a model says. It has no tactics of its own: pass lower_attention turns it into
// rope_append, attention_context and attention_generation.
//
//   q: [T, H*D], k: [T, G*D], v: [T, G*Dv]; the sequence inputs (ops/common/sequence_inputs.h); the
//   layer's KV cache (state); angles f32 [T, R] if rotary_dim > 0; q_norm, k_norm: float [D] if
//   qk_norm; sink_logits: float [H] if sink_logits; relative_bias: float [relative_buckets, H] if
//   relative_buckets > 0; with beams, last, cache_indirection: i32 [R, N] and
//   sequence_slots: i32 [S]
//   -> out: q's type [T, H*Dv], the cache after the step (state)
//
// Query head h uses KV head h / (H/G). K and V are appended to the cache as stored there, then
//   p = softmax over visible j of logit_ij,  out_i = sum_j p_ij v_j
//   logit_ij = cap(scale * q_i . k_j) + alibi_h(j - i) + relative_bias[bucket(j - i), h]
// where the query at position i sees keys j <= i, and with a window only those with j > i - window
// or j < sink_tokens. With sink_logits the softmax has one more logit, sink_logits[h], whose
// probability goes to nothing. cap and ALiBi: ops/common/attention_logits.h; bucket:
// ops/common/relative_position.h. Each of them is there only where its attribute asks for it.
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
  double qk_norm_offset = 0;  // added to the weights of both norms (Gemma: 1)
  int window = 0;             // 0: all earlier positions are visible
  int sink_tokens = 0;        // positions that stay visible in front of the window
  double softcap = 0;         // logits are bent to softcap * tanh(logit / softcap); 0: not
  double alibi_max_bias = 0;  // ALiBi with slopes down to 2^-alibi_max_bias (usually 8); 0: none
  bool alibi_bf16 = false;    // Falcon's ALiBi: rounded to bf16, added before the scale
  bool sink_logits = false;   // each head has a logit without a key and a value (gpt-oss)
  int relative_buckets = 0;   // of T5's relative position bias; 0: none
  int relative_max_distance = 0;  // keys so far away, or farther, share the last bucket
  int beams = 0;  // above 0: of beams that share their past, so many of a request at most
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
                      Field{"qk_norm_offset", &A::qk_norm_offset},
                      Field{"window", &A::window},
                      Field{"sink_tokens", &A::sink_tokens},
                      Field{"softcap", &A::softcap},
                      Field{"alibi_max_bias", &A::alibi_max_bias},
                      Field{"alibi_bf16", &A::alibi_bf16},
                      Field{"sink_logits", &A::sink_logits},
                      Field{"relative_buckets", &A::relative_buckets},
                      Field{"relative_max_distance", &A::relative_max_distance},
                      Field{"beams", &A::beams}};
  }
};

}  // namespace millrace::ops
