// What a GenerationSession holds between steps: its parts, the steps under way, and where their
// time went.
#pragma once

#include <array>
#include <chrono>
#include <vector>

#include "runtime/session_setup.h"

namespace millrace {

struct GenerationSession::State {
  runtime::SessionParts parts;
  int64_t taken_by_setup = 0;    // bytes of a GPU, with the weights
  std::vector<StepToken> added;  // by the step taken in last
  int under_way = 0;             // steps launched and not taken in
  std::vector<StepTimes> steps;  // of the decode, taken in

  /// False when there is nothing to launch now.
  bool launch_next() {
    const auto start = Clock::now();
    const Batch* next = parts.batch->next_batch();
    if (next == nullptr) return false;
    try {
      parts.stepper->launch(*next);
    } catch (...) {
      parts.batch->fail_newest_step();
      throw;
    }
    launch_seconds_[static_cast<size_t>(under_way++)] = seconds_since(start);
    return true;
  }

  StepResult collect() {
    --under_way;
    try {
      return parts.stepper->collect();
    } catch (...) {
      parts.batch->fail_oldest_step();
      throw;
    }
  }

  void take_in(StepResult result) {
    StepTimes times{.total_s = result.seconds,
                    .device_s = result.device_seconds,
                    .idle_s = steps.empty() ? 0 : result.idle_seconds,
                    .host_s = launch_seconds_[0],
                    .launches = result.launches,
                    .replayed = result.replayed};
    launch_seconds_[0] = launch_seconds_[1];  // of the one that is still under way
    const auto start = Clock::now();
    added = parts.batch->absorb(std::move(result));
    times.host_s += seconds_since(start);
    steps.push_back(times);
  }

  /// Waits for steps that an abandoned stream left behind. Whether they failed concerns nobody.
  void drain() {
    while (under_way > 0) {
      try {
        parts.batch->absorb(collect());
      } catch (const Error&) {
      }
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  std::array<double, 2> launch_seconds_{};  // of the steps under way, oldest first
};

}  // namespace millrace
