// begin_step() and end_step() on a GPU: kernels that read and write pinned memory over the bus.
#pragma once

#include "device/transfers.h"

namespace millrace::device {

void begin_step_cuda(const Queue& queue, std::span<const TransferPart> parts, int64_t* begun_ns);
void end_step_cuda(const Queue& queue, std::span<const TransferPart> parts, int64_t* ended_ns);

}  // namespace millrace::device
