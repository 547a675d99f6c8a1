// One step of an engine, launch by launch: what `explain` prints.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/graph_stepper.h"

namespace millrace::runtime {

struct MeasureOptions {
  Regime regime = Regime::kContext;
  int rows = 1;         // tokens: of one prompt, or sequences with one token each
  int past_length = 0;  // tokens before, of each sequence
  bool measure = false;
  /// The encoder's graph instead, over one input of `rows` rows. REQUIRES: the engine has one.
  bool encoder = false;
};

struct MeasuredLaunch {
  std::string op, tactic, scope;
  std::vector<std::pair<std::string, std::string>>
      why_not;  // other tactics of the device: the reason
  std::vector<ops::Tensor> in, out;
  ops::Cost cost;
  double time_us = 0;  // median; 0 when not measured
  int with_next = 0;   // launches behind this that go as one with it; measured they go alone
};

/// The launches that such a step runs, in order.
std::vector<MeasuredLaunch> measure_step(const std::shared_ptr<const LoadedEngine>& engine,
                                         const MeasureOptions& options);

}  // namespace millrace::runtime
