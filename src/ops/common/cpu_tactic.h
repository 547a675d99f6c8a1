// What CPU tactics share: when they can run, and how they divide rows among threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/thread_pool.h"
#include "ops/op.h"

/// Entries of a tactic list that exist on x86-64 only: `MILLRACE_ON_X86({...}, {...}, )`.
#if defined(__x86_64__)
#define MILLRACE_ON_X86(...) __VA_ARGS__
#else
#define MILLRACE_ON_X86(...)
#endif

namespace millrace::ops {

/// Tactic::why_not of a tactic that needs nothing but an instruction set.
template <device::CpuIsa kIsa>
std::string needs_isa(const Launch&, const device::Properties& properties) {
  if (properties.isa >= kIsa) return "";
  return str("needs ", device::isa_name(kIsa), ", the processor has ",
             device::isa_name(properties.isa));
}

/// Calls function(first, last) for ranges of `rows` rows of `width` elements on the pool's threads.
/// Below about 16 Ki elements (some microseconds) one thread is faster than waking another. The
/// ranges depend on the threads: for rows that are computed independently of each other.
template <typename F>
void for_rows(const Launch& launch, int64_t rows, int64_t width, F&& function) {
  constexpr int64_t kElementsPerTask = 16384;
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, width));
  launch.pool().parallel_ranges(rows, grain, function);
}

}  // namespace millrace::ops
