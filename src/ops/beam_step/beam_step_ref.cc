// The specification: again and again the next of all K V continuations.
#include <algorithm>
#include <array>
#include <cmath>

#include "ops/beam_step/beam_step_io.h"

namespace millrace::ops {
namespace {

/// The first continuation behind `previous`; of those that do not end, unless `with_ends`.
Continuation next(const BeamStepIo& io, const BeamRow& beam, const Continuation* previous,
                  bool with_ends) {
  Continuation best;
  for (int32_t b = 0; b < io.k; ++b) {
    const float* x = io.x(beam, b);
    const float base = io.base(beam, b);
    for (int32_t t = 0; t < io.vocab; ++t) {
      if (!with_ends && io.ends(beam, t)) continue;
      const Continuation c{base + x[t], static_cast<int32_t>(b * io.vocab + t)};
      const bool is_behind = previous == nullptr || previous->is_before(c);
      if (is_behind && (best.index < 0 || c.is_before(best))) best = c;
    }
  }
  return best;
}

bool has_nan(const BeamStepIo& io, const BeamRow& beam) {
  for (int32_t b = 0; b < io.k; ++b) {
    const float* x = io.x(beam, b);
    if (std::any_of(x, x + io.vocab, [](float v) { return std::isnan(v); })) return true;
  }
  return false;
}

}  // namespace

void beam_step_ref(const Launch& launch) {
  const BeamStepIo io(launch);
  for (int64_t g = 0; g < io.requests; ++g) {
    const BeamRow beam = read_beam_row(io.beams, g);
    std::array<float, kMaxBeams> scores;
    float best = -INFINITY;
    for (const bool with_ends : {false, true}) {
      Continuation c;
      for (int32_t place = 0; place < io.k; ++place) {
        if (place == 0 || c.index >= 0) c = next(io, beam, place == 0 ? nullptr : &c, with_ends);
        io.put(g, place + (with_ends ? io.k : 0), c);
        if (!with_ends) scores[static_cast<size_t>(place)] = c.score;
        best = std::max(best, c.score);
      }
    }
    io.status[g] = has_nan(io, beam)     ? kSamplingNotFinite
                   : !(best > -INFINITY) ? kSamplingNoCandidate
                                         : kSamplingOk;
    std::copy_n(scores.begin(), io.k, io.scores + beam.slot);
  }
}

}  // namespace millrace::ops
