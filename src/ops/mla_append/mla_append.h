// mla_append: what latent attention (DeepSeek's MLA) does before it: normalises the latent, rotates
// a part of each query head and the one key that all heads share, and appends latent and key to the
// cache, for every row a sequence owns.
//
//   q: [T, H*(Dn+R)]; kv: [T, C+R], latent and key; the sequence inputs
//   (ops/common/sequence_inputs.h); the layer's KV cache (state), whose K plane has one head of C+R
//   and which has no V plane; angles: f32 [T, R]; norm: float [C]
//   -> q: its type [T, H*(Dn+R)], the last R elements of each head rotated; the cache after the
//   step (state)
//
// Arithmetic in float; what is stored is rounded to the cache's type once. Pairs and angles as in
// rope_append.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct MlaAppend {
  static constexpr std::string_view kName = "mla_append";
  int heads = 0;             // H
  int nope_size = 0;         // Dn
  int rope_size = 0;         // R
  int latent_size = 0;       // C
  bool interleaved = false;  // RoPE pairs (2i, 2i+1) instead of (i, i + R/2)
  double norm_eps = 1e-6;
  bool operator==(const MlaAppend&) const = default;
  static constexpr auto fields() {
    using A = MlaAppend;
    return std::tuple{Field{"heads", &A::heads},
                      Field{"nope_size", &A::nope_size},
                      Field{"rope_size", &A::rope_size},
                      Field{"latent_size", &A::latent_size},
                      Field{"interleaved", &A::interleaved},
                      Field{"norm_eps", &A::norm_eps}};
  }
};

}  // namespace millrace::ops
