#include <cstring>

#include "base/thread_pool.h"
#include "ops/common/full_attention.h"
#include "ops/unfold_frames/unfold_frames.h"

namespace millrace::ops {
namespace {

/// One row of the result. `frame`: the middle one; [first, end): the sequence's. T: any type of the
/// element's size.
template <typename T>
void unfold(const T* x, int64_t columns, int64_t frame, int64_t first, int64_t end, T* out) {
  for (int64_t k = 0; k < 3; ++k) {
    const int64_t source = frame + k - 1;
    const bool inside = source >= first && source < end;
    for (int64_t c = 0; c < columns; ++c)
      out[3 * c + k] = inside ? x[source * columns + c] : T{0};
  }
}

template <typename T>
void run(const Launch& launch) {
  const int64_t stride = launch.attrs<UnfoldFrames>().stride, columns = launch.in[0].dim(1);
  const OwnedRows rows(launch.in[1], launch.in[2]);
  for (int64_t s = 0; s < rows.num_sequences; ++s) {
    const int64_t first = int64_t{2} * rows.query_start[s];
    const int64_t frames = int64_t{2} * rows.query_length[s];
    launch.pool().parallel_for(frames / stride, [&](int64_t i) {
      const int64_t frame = first + stride * i;
      unfold(launch.in[0].as<T>(), columns, frame, first, first + frames,
             launch.out[0].as<T>() + frame / stride * 3 * columns);
    });
  }
}

}  // namespace

void unfold_frames_ref(const Launch& launch) {
  if (ir::dtype_size(launch.in[0].dtype) == 4) {
    run<uint32_t>(launch);
  } else {
    run<uint16_t>(launch);
  }
}

}  // namespace millrace::ops
