// mla_attention: latent attention (DeepSeek's MLA). Keys and values of all heads are made from what
// is cached of a token: its latent c_j and the rotated key r_j that heads share.
//
//   q: [T, H*(Dn+R)], rotated; the sequence inputs (ops/common/sequence_inputs.h); the layer's KV
//   cache (state) of C+R elements a token, this step's in it; kv_b: float [H*(Dn+Dv), C], for each
//   head the rows that make its key, K_h, then those that make its value, V_h; the beam inputs if
//   beams > 0, which sequences in generation follow
//   -> out: q's type [T, H*Dv]; only rows that a sequence owns are written
//
//   logit_ij = scale * (qn_i . K_h c_j + qr_i . r_j)     p = softmax over j <= i
//   out_i = sum_j p_ij V_h c_j
//
// There are two ways to compute it. *Expanded*: make K_h c_j and V_h c_j of each key and attend as
// usual; good where many queries share them. *Absorbed*: qn_i . K_h c_j = (K_h^T qn_i) . c_j, so
// make the query's side once and attend to latents, then apply V_h to the weighted sum of latents;
// good for one query. The reference takes the absorbed form for both phases, so that a token's
// result does not depend on the phase it came in.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct MlaAttention {
  static constexpr std::string_view kName = "mla_attention";
  int heads = 0;        // H
  int nope_size = 0;    // Dn
  int rope_size = 0;    // R
  int latent_size = 0;  // C
  int v_size = 0;       // Dv
  double scale = 0;
  int beams = 0;  // above 0: of beams that share their past, so many of a request at most
  bool operator==(const MlaAttention&) const = default;
  static constexpr auto fields() {
    using A = MlaAttention;
    return std::tuple{Field{"heads", &A::heads},         Field{"nope_size", &A::nope_size},
                      Field{"rope_size", &A::rope_size}, Field{"latent_size", &A::latent_size},
                      Field{"v_size", &A::v_size},       Field{"scale", &A::scale},
                      Field{"beams", &A::beams}};
  }
};

}  // namespace millrace::ops
