#include "ops/beam_reorder/beam_reorder_io.h"

namespace millrace::ops {

void beam_reorder_ref(const Launch& launch) {
  const BeamReorderIo io(launch);
  for (int64_t g = 0; g < io.requests; ++g) {
    const BeamRow beam = read_beam_row(io.beams, g);
    for (int64_t position = io.begin(beam); position < io.end(beam); ++position)
      io.move(g, beam, position);
  }
}

}  // namespace millrace::ops
