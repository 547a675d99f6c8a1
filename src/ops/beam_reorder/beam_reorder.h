// beam_reorder: the tables of each beam become those of the beam it goes on from, and its new token
// is appended.
//   tables: i32 [2, R, M], beams: i32 [G, 8], parents: i32 [G, 2K], tokens: i32 [G, 2K]
//   (ops/common/beam_row.h)
//   -> tables, in the same memory
// For beam b of a request with slot s, length n, p = parents[b], at every position below n:
//   tables[0, s + b, .] = tables[0, s + p, .]          the token history
//   tables[1, s + b, .] = tables[1, s + p, .] + p - b  whose blocks: those that p's beam read
// and at position n: tokens[b], and 0, because the beam will write this position itself. Behind the
// prompt (a record of one row) every beam gets the prompt's tokens of the first one, and -b: the
// prompt's keys and values are where the first beam has them. Nothing is appended where n >= M.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct BeamReorder {
  static constexpr std::string_view kName = "beam_reorder";
  int beams = 0;  // K, 2 to kMaxBeams
  bool operator==(const BeamReorder&) const = default;
  static constexpr auto fields() { return std::tuple{Field{"beams", &BeamReorder::beams}}; }
};

}  // namespace millrace::ops
