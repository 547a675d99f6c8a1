// rope_angles: cosines and sines of the rotary position embedding, once per step for all layers
// that share them.
//   position p of row t, frequency f_i:  out[t, i] = a cos(p f_i),  out[t, R/2 + i] = a sin(p f_i),
//   i < R/2 position_ids: i32 [T], context_lengths, query_start, query_length: i32 [S] -> f32 [T,
//   R]
// Angles are products of floats, as in transformers. The frequencies and the factor a follow the
// scaling rule (ops/common/rope_frequencies.h); rules that depend on length (dynamic, longrope,
// ntk_steps) choose once per sequence, from max(context_lengths[s], 1): the full prompt. Rows that
// no sequence owns are not written.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct RopeAngles {
  static constexpr std::string_view kName = "rope_angles";
  int rotary_dim = 0;            // R
  double theta = 10000;          // base
  std::string rule = "default";  // default, linear, dynamic, llama3, yarn, longrope, ntk_steps
  double factor = 1;
  double original_max_position = 0;  // 0: the rule does not use it
  double max_position = 0;           // max_position_embeddings, where the rule needs it
  double attention_factor = 0;       // 0: by the rule's formula
  double low_freq_factor = 1, high_freq_factor = 4;         // llama3
  double beta_fast = 32, beta_slow = 1;                     // yarn
  double mscale = 0, mscale_all_dim = 0;                    // yarn
  bool truncate = true;                                     // yarn
  std::vector<double> short_factor = {}, long_factor = {};  // longrope, R/2 each
  bool operator==(const RopeAngles&) const = default;
  static constexpr auto fields() {
    using R = RopeAngles;
    return std::tuple{Field{"rotary_dim", &R::rotary_dim},
                      Field{"theta", &R::theta},
                      Field{"rule", &R::rule},
                      Field{"factor", &R::factor},
                      Field{"original_max_position", &R::original_max_position},
                      Field{"max_position", &R::max_position},
                      Field{"attention_factor", &R::attention_factor},
                      Field{"low_freq_factor", &R::low_freq_factor},
                      Field{"high_freq_factor", &R::high_freq_factor},
                      Field{"beta_fast", &R::beta_fast},
                      Field{"beta_slow", &R::beta_slow},
                      Field{"mscale", &R::mscale},
                      Field{"mscale_all_dim", &R::mscale_all_dim},
                      Field{"truncate", &R::truncate},
                      Field{"short_factor", &R::short_factor},
                      Field{"long_factor", &R::long_factor}};
  }
};

}  // namespace millrace::ops
