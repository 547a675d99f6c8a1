#include "device/named_range.h"

#include <utility>

#include "device/cuda/profiler_range.h"

namespace millrace::device {
namespace {

thread_local const char* current = "";

}  // namespace

NamedRange::NamedRange(Kind kind, const char* name)
    : kind_(kind), outer_(std::exchange(current, name)) {
  if (kind_ == Kind::kCuda) begin_profiler_range(name);
}

NamedRange::~NamedRange() {
  if (kind_ == Kind::kCuda) end_profiler_range();
  current = outer_;
}

const char* current_range() {
  return current;
}

}  // namespace millrace::device
