// Times the ways to run a problem and picks the fastest that is right and fits.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compiler/problem.h"
#include "compiler/tactics/timing_cache.h"
#include "compiler/tactics/trial.h"
#include "device/device.h"

namespace millrace::compiler {

/// THREAD: one at a time.
class Profiler {
 public:
  /// `max_bytes` bounds what trials hold at any time: tensors, copies of them and the workspace
  /// together. `cache` outlives this.
  Profiler(device::Device& device, TimingCache& cache, int64_t max_bytes);
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  /// Microseconds.
  using Times = std::map<const ops::Tactic*, double>;

  /// The fastest of these tactics (at least one). A tactic whose trial would not fit, or whose
  /// outputs are wrong, is dropped with a note; when none is left, the first one wins unmeasured.
  /// Never throws for lack of memory.
  /// `series`: times of the same operation with fewer rows; becomes those with these rows. What was
  /// far slower than another of these tactics is not timed again.
  const ops::Tactic* fastest(const Problem& problem, const std::vector<const ops::Tactic*>& tactics,
                             Times* series = nullptr);

  int64_t timed() const { return timed_; }
  int64_t from_cache() const { return from_cache_; }
  /// What was dropped and why, each said once.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  std::optional<double> time(const ops::Tactic& tactic, const Problem& problem,
                             int64_t largest_workspace, double best_us,
                             std::unique_ptr<Trial>& trial);
  void check_device(const ops::Tactic& tactic, const Problem& problem);
  void note(const ops::Tactic& tactic, const Problem& problem, const std::string& why);

  device::Device& device_;
  TimingCache& cache_;
  int64_t max_bytes_;
  int64_t timed_ = 0, from_cache_ = 0;
  std::vector<std::string> notes_;
  std::map<std::string, const ops::Tactic*> decided_;  // by problem key: layers repeat
  TrialStore store_;
};

}  // namespace millrace::compiler
