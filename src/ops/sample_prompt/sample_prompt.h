// sample_prompt: puts prompts into the token history (ops/common/sampling_row.h).
//   history[slot, position + i] = ids[start + i]   for each segment (slot, position, start, count)
//   history: i32 [R, M], ids: i32 [N], segments: i32 [A, 4] -> history, in the same memory
// A segment with slot -1 is padding.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct SamplePrompt {
  static constexpr std::string_view kName = "sample_prompt";
  bool operator==(const SamplePrompt&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
