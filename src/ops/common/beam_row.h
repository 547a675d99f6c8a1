// What the beam ops know about one request of a step: a fixed-size record, uploaded with the batch.
//
// A request with K beams has K consecutive slots, one for each beam. Tensors that the beam ops
// share; G such requests are in the step, R slots in the session:
//   beams    i32 [G, 8]      BeamRow records
//   parents  i32 [G, 2K]     of the chosen continuations: which beam each goes on from,
//   tokens   i32 [G, 2K]     and with which token. The first K are the beams of the next step, the
//                            other K the best of all (ops/beam_step/beam_step.h)
//   tables   i32 [2, R, M]   the token history of sampling (ops/common/sampling_row.h), and behind
//                            it the cache indirection: how many slots after its own the one is in
//                            whose blocks a beam finds keys and values of a position
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "ops/common/sampling_row.h"

namespace millrace::ops {

inline constexpr int kMaxBeams = 64;

struct BeamRow {
  int32_t slot = 0;       // its first
  int32_t first_row = 0;  // of the step's rows of logits
  int32_t rows = 0;       // K, or 1: behind the prompt all beams are still the same
  int32_t length = 0;     // tokens in the history; the position of the tokens to choose
  int32_t prompt_length = 0;
  ListSpan end_ids = {};  // tokens that end a beam, each once
  int32_t unused = 0;
};

inline constexpr int kBeamRowWords = 8;
static_assert(sizeof(BeamRow) == kBeamRowWords * sizeof(int32_t));

/// Record `index` of the tensor `beams`.
MILLRACE_HD inline BeamRow read_beam_row(const int32_t* beams, int64_t index) {
  BeamRow row;
  const int32_t* from = beams + index * kBeamRowWords;
  row.slot = from[0];
  row.first_row = from[1];
  row.rows = from[2];
  row.length = from[3];
  row.prompt_length = from[4];
  row.end_ids = {from[5], from[6]};
  return row;
}

}  // namespace millrace::ops
