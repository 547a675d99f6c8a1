// beam_step: of all continuations of a request's beams, the best.
//   scores: f32 [R], by slot; log_probs: f32 [L, V], adjusted: f32 [L, V], rows: i32 [L, 32],
//   beams: i32 [G, 8], lists: i32 [P] (ops/common/beam_row.h, ops/common/sampling_row.h)
//   -> scores, in the same memory; chosen: f32 [G, 2K]; parents, tokens: i32 [G, 2K];
//      status: i32 [G] (SamplingStatus)
//
// Beam b of a request continues with token t at the score
//   s(b, t) = scores[slot + b] + x[t]
// where x is the beam's row of `adjusted` when that row has kSamplingAdjusts, else of `log_probs`.
// With one row for all beams (the prompt's last token), scores are taken as 0 for the first beam
// and -1e9 for the others, so that all continuations are the first one's where it has enough.
// Larger s comes first, of equals the lower b V + t. Places of the outputs:
//   [0, K)   the K first ones that do not end in one of `end_ids`: the beams of the next step,
//            whose s become the scores
//   [K, 2K)  the K first ones of all: those among them that end are finished hypotheses
// Where there are too few, the rest is parent 0, token 0 at -infinity. A NaN among the rows of a
// request makes its status kSamplingNotFinite, no continuation above -infinity
// kSamplingNoCandidate.
//
// These are the 2K candidates of transformers' beam search, whatever the number of end tokens.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct BeamStep {
  static constexpr std::string_view kName = "beam_step";
  int beams = 0;  // K, 2 to kMaxBeams
  bool operator==(const BeamStep&) const = default;
  static constexpr auto fields() { return std::tuple{Field{"beams", &BeamStep::beams}}; }
};

}  // namespace millrace::ops
