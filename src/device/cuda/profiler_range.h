// Ranges in the timeline of a profiler. They cost next to nothing while none is attached.
#pragma once

namespace millrace::device {

void begin_profiler_range(const char* name);
void end_profiler_range();

}  // namespace millrace::device
