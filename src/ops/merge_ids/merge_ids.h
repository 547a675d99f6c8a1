// merge_ids: the token ids of a step, where some come from the host and some were sampled on the
// device a step ago.
//   out[t] = ids[t] >= 0 ? ids[t] : last_ids[-1 - ids[t]]
//   ids: i32 [T], last_ids: i32 of any shape, indexed flat (the token history [R, M]) -> i32 [T]
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct MergeIds {
  static constexpr std::string_view kName = "merge_ids";
  bool operator==(const MergeIds&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
