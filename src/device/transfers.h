// The copies at both ends of a step. All parts of one are a single launch, and they carry the
// device's clock: copies in a captured graph would be nodes of their own, at several microseconds
// each.
#pragma once

#include <cstdint>
#include <span>

#include "device/device.h"

namespace millrace::device {

/// Both addresses are multiples of 16. As far as the next multiple of 16 bytes may be copied.
struct TransferPart {
  void* target;
  const void* source;
  int64_t bytes;
};

/// Parts of one transfer, at most.
inline constexpr int kMaxTransferParts = 24;

/// Enqueues the copies that begin a step, from memory of allocate_host() to the device. They begin
/// when everything enqueued before has ended, and nothing enqueued after begins before they are
/// done: no overlap of launches crosses them. `begun_ns`, in memory of allocate_host(), gets the
/// time of the device at their beginning.
void begin_step(Device& device, std::span<const TransferPart> parts, int64_t* begun_ns);

/// Enqueues the copies that end a step, from the device to memory of allocate_host(), and last the
/// time in `ended_ns`. The host may read both when an event recorded after this has been waited
/// for.
void end_step(Device& device, std::span<const TransferPart> parts, int64_t* ended_ns);

}  // namespace millrace::device
