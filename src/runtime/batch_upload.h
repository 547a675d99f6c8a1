// Writes a Batch into step buffers: rows, positions, tables, sampling records.
#pragma once

#include "ops/common/sampling_row.h"
#include "runtime/step_buffers.h"

namespace millrace::runtime {

/// What the stepper keeps for the sequence in a slot.
struct SlotSampling {
  ops::PackedSampling packed;
  int list_offset = 0;  // of its lists in the stepper's list buffer
};

/// What a batch upload needs to know beside the batch.
struct UploadContext {
  const StepLimits& limits;
  std::span<const SlotSampling> slots;
  int history_length = 0;  // N: tokens of a slot in the token history
  /// The step's S, L and T where it is larger than the batch. REQUIRES: every sequence of the batch
  /// has one row and samples. The rest are sequences without rows, rows that belong to no sequence
  /// and sampling records without a slot: operations leave them alone.
  int padded_rows = 0;
};

/// Rows of the captured step that `rows` sequences with one row each are run as, at most `most`: 1,
/// 2, 4, 8, 12, 16, 24, 32, 48 and so on. Few graphs serve all sizes of a batch.
int row_bucket(int rows, int most);

/// Fills the host image. REQUIRES: the batch is within the limits; context sequences come first.
StepShape fill_step_buffers(const Batch& batch, const UploadContext& context, StepBuffers& buffers);

}  // namespace millrace::runtime
