#include "device/transfers.h"

#include <chrono>
#include <cstring>

#include "base/check.h"
#include "device/cuda/step_transfers.h"
#include "device/named_range.h"

namespace millrace::device {
namespace {

void check(std::span<const TransferPart> parts) {
  CHECK(parts.size() <= kMaxTransferParts, parts.size(), " parts of a transfer");
  for (const TransferPart& part : parts) {
    const auto both =
        reinterpret_cast<uintptr_t>(part.target) | reinterpret_cast<uintptr_t>(part.source);
    CHECK(both % 16 == 0, "a transfer between addresses that are not multiples of 16");
  }
}

void copy_on_cpu(std::span<const TransferPart> parts) {
  for (const TransferPart& part : parts)
    std::memcpy(part.target, part.source, static_cast<size_t>(part.bytes));
}

int64_t now_ns() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

}  // namespace

void begin_step(Device& device, std::span<const TransferPart> parts, int64_t* begun_ns) {
  check(parts);
  if (device.properties().kind == Kind::kCuda) {
    const NamedRange range(Kind::kCuda, "begin_step");
    begin_step_cuda(device.queue(), parts, begun_ns);
    return;
  }
  *begun_ns = now_ns();
  copy_on_cpu(parts);
}

void end_step(Device& device, std::span<const TransferPart> parts, int64_t* ended_ns) {
  check(parts);
  if (device.properties().kind == Kind::kCuda) {
    const NamedRange range(Kind::kCuda, "end_step");
    end_step_cuda(device.queue(), parts, ended_ns);
    return;
  }
  copy_on_cpu(parts);
  *ended_ns = now_ns();
}

}  // namespace millrace::device
