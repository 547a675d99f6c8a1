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
// Times repeat within half a percent (median). Of tactics that are as fast as the fastest, the
// first one is taken, and a chain that is as fast as its launches alone: so builds agree.
constexpr double kAsFast = 1.01;
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

void Profiler::note(const Way& way, const std::string& why) {
  notes_.push_back(str("tactic ", way.name, " dropped for ", way.key, ": ", why));
  log::debug(notes_.back());
}

// Nothing when it is dropped, with a note.
std::optional<double> Profiler::time(const Way& way, double best_us,
                                     std::unique_ptr<Trial>& trial) {
  const int64_t bytes = Trial::tensor_bytes(way.problems) + way.workspace;
  if (bytes > max_bytes_) {
    note(way,
         str("its trial needs ", format_bytes(bytes), ", the limit is ", format_bytes(max_bytes_)));
    return std::nullopt;
  }
  try {
    if (trial == nullptr) {
      const auto start = Clock::now();
      trial = std::make_unique<Trial>(way.problems, way.flow, store_, way.largest_workspace,
                                      max_bytes_);
      log::debug("trial of ", way.key, " prepared in ", ms_since(start), " ms");
    }
    const auto start = Clock::now();
    const std::optional<double> us = trial->time(way.name.c_str(), way.run, way.workspace, best_us);
    if (!us) {
      note(way, "its outputs are wrong");
    } else {
      log::debug("tactic ", way.name, " takes ", *us, " us for ", way.key, ", found in ",
                 ms_since(start), " ms");
    }
    return us;
  } catch (const Error& error) {
    note(way, error.what());
    check_device(way);
    return std::nullopt;
  }
}

// What a tactic did may end a CUDA context: nothing can run on the device from then on.
void Profiler::check_device(const Way& way) {
  try {
    device_.synchronize();
  } catch (const Error& error) {
    throw_failed(str("tactic ", way.name, " broke the device: ", error.what()), way.key,
                 "report it; to go on meanwhile, build on a CPU, or with another --max-batch-size");
  }
}

std::optional<double> Profiler::known_or_timed(const Way& way, double best_us,
                                               std::unique_ptr<Trial>& trial) {
  std::optional<double> us = cache_.find(way.key, way.name);
  if (us) {
    ++from_cache_;
    return us;
  }
  us = time(way, best_us, trial);
  if (!us) return us;
  ++timed_;
  cache_.add(way.key, way.name, *us);
  return us;
}

const ops::Tactic* Profiler::fastest(const Problem& problem,
                                     const std::vector<const ops::Tactic*>& tactics, Times* series,
                                     double late_us) {
  const std::string key = problem.key();
  const auto decision = std::pair(key, late_us);
  if (const auto it = decided_.find(decision); it != decided_.end()) return it->second;
  const Ratios before = series == nullptr ? Ratios{} : ratios(*series, tactics);
  const ops::Tactic* best = nullptr;
  Times times;
  const auto in_step = [&](const ops::Tactic* t) {
    return times.at(t) + (t->lets_next_start ? 0 : late_us);
  };
  const auto first_as_fast_as = [&](const ops::Tactic* fastest) {
    return *std::ranges::find_if(tactics, [&](const ops::Tactic* t) {
      return times.contains(t) && in_step(t) <= kAsFast * in_step(fastest);
    });
  };
  const int64_t room = max_bytes_ - Trial::tensor_bytes({&problem, 1});
  const int64_t workspace = largest_workspace(tactics, problem, device_, room);
  std::unique_ptr<Trial> trial;  // made when the first time is not in the cache
  for (const ops::Tactic* tactic : tactics) {
    const auto ratio = before.of.find(tactic);
    if (ratio != before.of.end() && ratio->second > kOutclassed) continue;
    const auto run = [&](std::span<const ops::Launch> launches) { tactic->run(launches[0]); };
    const std::optional<double> us =
        known_or_timed({{&problem, 1},
                        {},
                        key,
                        tactic->name,
                        workspace_of(*tactic, problem, device_),
                        workspace,
                        run},
                       best == nullptr ? kNone : times.at(best), trial);
    if (!us) continue;
    times[tactic] = *us;
    if (best == nullptr || in_step(tactic) < in_step(best)) best = tactic;
  }
  best = best == nullptr ? tactics[0] : first_as_fast_as(best);
  decided_[decision] = best;
  if (series == nullptr) return best;
  for (const auto& [tactic, ratio] : before.of) {
    // Those left out are assumed to be as far behind as before.
    if (times.contains(before.fastest)) times.emplace(tactic, ratio * times.at(before.fastest));
  }
  *series = std::move(times);
  return best;
}

bool Profiler::is_faster(const Chain& chain) {
  std::vector<std::string> keys, names;
  int64_t workspace = 0, chain_workspace = 0;
  for (size_t i = 0; i < chain.problems.size(); ++i) {
    const Problem& problem = chain.problems[i];
    keys.push_back(problem.key());
    names.emplace_back(chain.alone[i]->name);
    workspace = std::max(workspace, workspace_of(*chain.alone[i], problem, device_));
    chain_workspace = std::max(chain_workspace, workspace_of(*chain.tactic, problem, device_));
  }
  const std::string key = join(keys, " > "), alone = join(names, " > ");
  const auto [decided, is_new] =
      decided_chains_.emplace(str(key, "\t", alone, "\t", chain.tactic->name), false);
  if (!is_new) return decided->second;
  const auto run_chain = [&](std::span<const ops::Launch> launches) {
    chain.tactic->run_chain(launches);
  };
  const auto run_alone = [&](std::span<const ops::Launch> launches) {
    for (size_t i = 0; i < launches.size(); ++i)
      chain.alone[i]->run(launches[i]);
  };
  std::unique_ptr<Trial> trial;
  const int64_t largest = std::max(workspace, chain_workspace);
  const std::optional<double> us = known_or_timed(
      {chain.problems, chain.flow, key, chain.tactic->name, chain_workspace, largest, run_chain},
      kNone, trial);
  if (!us) return false;
  const std::optional<double> alone_us = known_or_timed(
      {chain.problems, chain.flow, key, alone, workspace, largest, run_alone}, *us, trial);
  decided->second = alone_us && *us <= kAsFast * *alone_us;
  return decided->second;
}

}  // namespace millrace::compiler
