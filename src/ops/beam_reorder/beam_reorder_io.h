// One launch of beam_reorder, column by column: K entries of a position change places together. For
// host and GPU.
#pragma once

#include "base/host_device.h"
#include "ops/beam_reorder/beam_reorder.h"
#include "ops/common/beam_row.h"
#include "ops/op.h"

namespace millrace::ops {

struct BeamReorderIo {
  explicit BeamReorderIo(const Launch& launch)
      : requests(launch.in[1].dim(0)),
        slots(launch.out[0].dim(1)),
        capacity(launch.out[0].dim(2)),
        k(launch.attrs<BeamReorder>().beams),
        tables(launch.out[0].as<int32_t>()),
        beams(launch.in[1].as<int32_t>()),
        parents(launch.in[2].as<int32_t>()),
        tokens(launch.in[3].as<int32_t>()) {}

  int64_t requests, slots, capacity;
  int32_t k;
  int32_t* tables;
  const int32_t* beams;
  const int32_t* parents;
  const int32_t* tokens;

  /// The first position that changes. Beams agree about the prompt once each of them has it.
  MILLRACE_HD int64_t begin(const BeamRow& beam) const {
    return beam.rows == 1 ? 0 : beam.prompt_length;
  }
  /// Behind the last one.
  MILLRACE_HD int64_t end(const BeamRow& beam) const {
    return beam.length < capacity ? beam.length + 1 : capacity;
  }

  MILLRACE_HD void move(int64_t request, const BeamRow& beam, int64_t position) const {
    int32_t* history = tables + int64_t{beam.slot} * capacity + position;
    int32_t* holders = history + slots * capacity;
    const int64_t places = request * 2 * k;
    if (position == beam.length) {
      for (int32_t b = 0; b < k; ++b) {
        history[b * capacity] = tokens[places + b];
        holders[b * capacity] = 0;
      }
      return;
    }
    int32_t ids[kMaxBeams], offsets[kMaxBeams];
    for (int32_t b = 0; b < k; ++b) {
      ids[b] = history[b * capacity];
      offsets[b] = holders[b * capacity];
    }
    for (int32_t b = 0; b < k; ++b) {
      const int32_t p = beam.rows == 1 ? 0 : parents[places + b];
      history[b * capacity] = ids[p];
      holders[b * capacity] = beam.rows == 1 ? -b : offsets[p] + p - b;
    }
  }
};

}  // namespace millrace::ops
