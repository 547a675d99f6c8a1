// The workspace of the faster tactics of beam_step: of each piece of each beam's row, the K first
// continuations that do not end, in their order.
#pragma once

#include "ops/beam_step/beam_step_io.h"

namespace millrace::ops {

struct BeamStepWork {
  static constexpr int64_t kPiece = 4096;  // tokens that one task reads

  explicit BeamStepWork(const Launch& launch)
      : requests(launch.in[4].dim(0)),
        pieces((launch.in[1].dim(1) + kPiece - 1) / kPiece),
        k(launch.attrs<BeamStep>().beams),
        base(static_cast<std::byte*>(launch.workspace)) {}

  int64_t tasks() const { return requests * k * pieces; }
  int64_t bytes() const {
    return tasks() * (k * static_cast<int64_t>(sizeof(Continuation)) + int64_t{4});
  }

  /// [K] of task (request, beam, piece); those that are missing have no index.
  MILLRACE_HD Continuation* found(int64_t task) const {
    return reinterpret_cast<Continuation*>(base) + task * k;
  }
  /// 1 where a task met a NaN.
  MILLRACE_HD int32_t* has_nan(int64_t task) const {
    return reinterpret_cast<int32_t*>(base + requests * k * pieces * k *
                                                 static_cast<int64_t>(sizeof(Continuation))) +
           task;
  }

  int64_t requests, pieces;
  int64_t k;
  std::byte* base;
};

}  // namespace millrace::ops
