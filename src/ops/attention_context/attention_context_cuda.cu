#include <algorithm>

#include "ops/attention_context/attention_context.h"
#include "ops/attention_context/attention_context_tactics.h"
#include "ops/common/attention_cuda.cuh"
#include "ops/common/attention_units_cuda.h"

namespace millrace::ops {

// Steps with context sequences are never captured, so the grid may follow the lengths on the host.
void attention_context_cuda(const Launch& launch) {
  const AttentionShape shape = AttentionShape::of(launch.attrs<AttentionContext>());
  const int sequences = count_context_sequences(launch);
  const auto* lengths = launch.in[1 + kHostQueryLength].as<int32_t>();
  const int longest = sequences == 0 ? 0 : *std::max_element(lengths, lengths + sequences);
  if (attention_context_mma(launch, shape, sequences, longest)) return;
  const int rows = unit_rows(shape, true);
  attend_units_cuda(launch, shape, 0, sequences, (longest * shape.group() + rows - 1) / rows,
                    {.whole = true});
}

}  // namespace millrace::ops
