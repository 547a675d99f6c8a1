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
};

/// Fills the host image. REQUIRES: the batch is within the limits; context sequences come first.
StepShape fill_step_buffers(const Batch& batch, const UploadContext& context, StepBuffers& buffers);

}  // namespace millrace::runtime
