// unfold_frames: what a convolution of width 3 over time multiplies, as rows: frame t of a sequence
// with the one before and the one behind it, zeros beyond its ends. A matmul with the convolution's
// weight [out, C, 3], read as [out, 3C], is then the convolution.
//
//   x: float [F, C], F = 2T: two frames for each row of the step; query_start, query_length: i32
//   [S], in rows of the step; position_ids: i32 [T], for its size only, if stride is 2
//   -> x's type [F, 3C], or [T, 3C] if stride is 2: out[r, 3c + k] = x[stride * r + k - 1, c]
//
// Rows that no sequence owns are neither read nor written.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct UnfoldFrames {
  static constexpr std::string_view kName = "unfold_frames";
  int stride = 1;  // 1 or 2
  bool operator==(const UnfoldFrames&) const = default;
  static constexpr auto fields() { return std::tuple{Field{"stride", &UnfoldFrames::stride}}; }
};

}  // namespace millrace::ops
