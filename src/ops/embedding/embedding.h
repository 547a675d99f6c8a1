// embedding: rows of a table by id.
//   out[t, :] = table[ids[t] + offset, :]
//   ids i32[T], table any float [V, E], optionally prompts f32 [R, P, E] -> `dtype` [T, E]
// With `prompts` the ids from V on are virtual tokens of prompt tuning: V + i is row i of its R P
// rows.
// Ids outside the table are the caller's fault and are checked when a batch is made, not here.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct Embedding {
  static constexpr std::string_view kName = "embedding";
  std::string dtype = "f32";  // of the output: the graph's activation type
  int offset = 0;             // added to every id (learned positions of OPT start at row 2)
  bool operator==(const Embedding&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"dtype", &Embedding::dtype}, Field{"offset", &Embedding::offset}};
  }
};

}  // namespace millrace::ops
