// Times the ways to run a problem and picks the fastest that is right and fits.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compiler/problem.h"
#include "compiler/tactics/timing_cache.h"
#include "compiler/tactics/trial.h"
#include "device/device.h"

namespace millrace::compiler {

/// Consecutive launches, and two ways to run them.
struct Chain {
  std::vector<Problem> problems;
  std::vector<const ops::Tactic*> alone;  // for each problem
  const ops::Tactic* tactic = nullptr;    // for all at once: it has run_chain
  std::vector<Flow> flow = {};            // between the problems
};

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

  /// The fastest of these tactics (at least one); the first of those that are as fast. A tactic
  /// whose trial would not fit, or whose outputs are wrong, is dropped with a note; when none is
  /// left, the first one wins unmeasured. Never throws for lack of memory.
  /// `series`: times of the same operation with fewer rows; becomes those with these rows. What was
  /// far slower than another of these tactics is not timed again.
  /// `late_us`: what the next launch takes longer where this one does not let it start early
  /// (Tactic::lets_next_start), which a trial does not see.
  const ops::Tactic* fastest(const Problem& problem, const std::vector<const ops::Tactic*>& tactics,
                             Times* series = nullptr, double late_us = 0);

  /// Whether the launches as one take no more time than one by one. No when it cannot be told: when
  /// a trial would not fit or an output is wrong, with a note.
  bool is_faster(const Chain& chain);

  int64_t timed() const { return timed_; }
  int64_t from_cache() const { return from_cache_; }
  /// What was dropped and why, each said once.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  /// Launches that are timed: of which problems, and how.
  struct Way {
    std::span<const Problem> problems;
    std::span<const Flow> flow;
    std::string key;            // of the problems
    std::string name;           // of the tactics
    int64_t workspace;          // bytes
    int64_t largest_workspace;  // of all ways of these problems
    Trial::Run run;
  };
  std::optional<double> known_or_timed(const Way& way, double best_us,
                                       std::unique_ptr<Trial>& trial);
  std::optional<double> time(const Way& way, double best_us, std::unique_ptr<Trial>& trial);
  void check_device(const Way& way);
  void note(const Way& way, const std::string& why);

  device::Device& device_;
  TimingCache& cache_;
  int64_t max_bytes_;
  int64_t timed_ = 0, from_cache_ = 0;
  std::vector<std::string> notes_;
  // By problem key and late_us: layers repeat.
  std::map<std::pair<std::string, double>, const ops::Tactic*> decided_;
  std::map<std::string, bool> decided_chains_;  // by the keys of problems and tactics
  TrialStore store_;
};

}  // namespace millrace::compiler
