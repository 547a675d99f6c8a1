#include "compiler/tactics/profiler.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "base/error.h"
#include "base/log.h"

namespace millrace::compiler {
namespace {

// Times slower than another: of one operation, it will not be the fastest with more rows.
constexpr double kOutclassed = 5;
constexpr double kNone = std::numeric_limits<double>::infinity();

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

int64_t workspace_of(const ops::Tactic& tactic, const Problem& problem,
                     const device::Device& device) {
  return tactic.workspace == nullptr ? 0 : tactic.workspace(problem.launch(), device.properties());
}

// The largest workspace of these tactics, without those that are too large for a trial in `room`.
int64_t largest_workspace(const std::vector<const ops::Tactic*>& tactics, const Problem& problem,
                          const device::Device& device, int64_t room) {
  int64_t largest = 0;
  for (const ops::Tactic* tactic : tactics) {
    const int64_t bytes = workspace_of(*tactic, problem, device);
    if (bytes <= room) largest = std::max(largest, bytes);
  }
  return largest;
}

// The times of these tactics that are known, relative to the fastest of them.
struct Ratios {
  const ops::Tactic* fastest = nullptr;
  Profiler::Times of;
};

Ratios ratios(const Profiler::Times& times, const std::vector<const ops::Tactic*>& tactics) {
  Ratios ratios;
  for (const ops::Tactic* tactic : tactics) {
    const auto it = times.find(tactic);
    if (it == times.end()) continue;
    ratios.of.insert(*it);
    if (ratios.fastest == nullptr || it->second < times.at(ratios.fastest)) {
      ratios.fastest = tactic;
    }
  }
  for (auto& [tactic, ratio] : ratios.of)
    ratio /= times.at(ratios.fastest);
  return ratios;
}

}  // namespace

Profiler::Profiler(device::Device& device, TimingCache& cache, int64_t max_bytes)
    : device_(device), cache_(cache), max_bytes_(max_bytes), store_(device) {}

void Profiler::note(const ops::Tactic& tactic, const Problem& problem, const std::string& why) {
  notes_.push_back(str("tactic ", tactic.name, " dropped for ", problem.key(), ": ", why));
  log::debug(notes_.back());
}

// Nothing when the tactic is dropped, with a note.
std::optional<double> Profiler::time(const ops::Tactic& tactic, const Problem& problem,
                                     int64_t largest_workspace, double best_us,
                                     std::unique_ptr<Trial>& trial) {
  const int64_t workspace = workspace_of(tactic, problem, device_);
  const int64_t bytes = Trial::tensor_bytes(problem) + workspace;
  if (bytes > max_bytes_) {
    note(tactic, problem,
         str("its trial needs ", format_bytes(bytes), ", the limit is ", format_bytes(max_bytes_)));
    return std::nullopt;
  }
  try {
    if (trial == nullptr) {
      const auto start = Clock::now();
      trial = std::make_unique<Trial>(problem, store_, largest_workspace, max_bytes_);
      log::debug("trial of ", problem.key(), " prepared in ", ms_since(start), " ms");
    }
    const auto start = Clock::now();
    const std::optional<double> us = trial->time(tactic, workspace, best_us);
    if (!us) {
      note(tactic, problem, "its outputs are wrong");
    } else {
      log::debug("tactic ", tactic.name, " takes ", *us, " us for ", problem.key(), ", found in ",
                 ms_since(start), " ms");
    }
    return us;
  } catch (const Error& error) {
    note(tactic, problem, error.what());
    check_device(tactic, problem);
    return std::nullopt;
  }
}

// What a tactic did may end a CUDA context: nothing can run on the device from then on.
void Profiler::check_device(const ops::Tactic& tactic, const Problem& problem) {
  try {
    device_.synchronize();
  } catch (const Error& error) {
    throw_failed(str("tactic ", tactic.name, " broke the device: ", error.what()), problem.key(),
                 "report it; to go on meanwhile, build on a CPU, or with another --max-batch-size");
  }
}

const ops::Tactic* Profiler::fastest(const Problem& problem,
                                     const std::vector<const ops::Tactic*>& tactics,
                                     Times* series) {
  const std::string key = problem.key();
  if (const auto it = decided_.find(key); it != decided_.end()) return it->second;
  const Ratios before = series == nullptr ? Ratios{} : ratios(*series, tactics);
  const ops::Tactic* best = nullptr;
  Times times;
  const int64_t room = max_bytes_ - Trial::tensor_bytes(problem);
  const int64_t workspace = largest_workspace(tactics, problem, device_, room);
  std::unique_ptr<Trial> trial;  // made when the first time is not in the cache
  for (const ops::Tactic* tactic : tactics) {
    const auto ratio = before.of.find(tactic);
    if (ratio != before.of.end() && ratio->second > kOutclassed) continue;
    std::optional<double> us = cache_.find(key, tactic->name);
    if (us) {
      ++from_cache_;
    } else {
      us = time(*tactic, problem, workspace, best == nullptr ? kNone : times.at(best), trial);
      if (!us) continue;
      ++timed_;
      cache_.add(key, tactic->name, *us);
    }
    times[tactic] = *us;
    if (best == nullptr || *us < times.at(best)) best = tactic;
  }
  if (best == nullptr) best = tactics[0];
  decided_[key] = best;
  if (series == nullptr) return best;
  for (const auto& [tactic, ratio] : before.of) {
    // Those left out are assumed to be as far behind as before.
    if (times.contains(before.fastest)) times.emplace(tactic, ratio * times.at(before.fastest));
  }
  *series = std::move(times);
  return best;
}

}  // namespace millrace::compiler
