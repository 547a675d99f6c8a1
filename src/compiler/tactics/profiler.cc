#include "compiler/tactics/profiler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/log.h"

namespace millrace::compiler {
namespace {

constexpr int kMaxRuns = 9;
constexpr double kMaxTrialUs = 60'000;  // of one tactic on one problem, all runs together
constexpr int kSamples = 64;            // outputs compared with float64
constexpr double kTolerance = 2e-2;     // of the largest exact sample: catches wrong, not inexact

int64_t aligned(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// Deterministic numbers in [-1, 1), enough to tell a right product from a wrong one.
void fill(const ops::Tensor& tensor) {
  uint32_t state = 0x9e3779b9;
  const int64_t count = tensor.count();
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    const float value = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
    switch (tensor.dtype) {
      case ir::DType::kF32:
        tensor.as<float>()[i] = value;
        break;
      case ir::DType::kBF16:
        tensor.as<uint16_t>()[i] = ir::float_to_bf16(value);
        break;
      case ir::DType::kF16:
        tensor.as<uint16_t>()[i] = ir::float_to_f16(value);
        break;
      default:
        return;  // ids and the like stay 0: valid for every op
    }
  }
}

// Where sample `i` of `count` outputs lies: the end, then multiples of the golden ratio, which meet
// every column of a matrix whatever its width (even steps would stay in one).
int64_t sample_index(int i, int64_t count) {
  if (i == 0) return count - 1;
  const uint64_t turns = static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u;
  return static_cast<int64_t>(static_cast<double>(turns >> 11) * 0x1p-53 *
                              static_cast<double>(count));
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

}  // namespace

// The memory of a problem and one way to run it.
struct Profiler::Trial {
  Trial(Problem p, device::Device& device, int64_t workspace_bytes) : problem(std::move(p)) {
    int64_t bytes = aligned(workspace_bytes);
    for (const auto* list : {&problem.in, &problem.out}) {
      for (const ops::Tensor& t : *list)
        bytes += aligned(t.bytes());
    }
    memory = device.allocate(std::max<int64_t>(bytes, 64), "tactic trial");
    std::byte* next = memory->data();
    for (auto* list : {&problem.in, &problem.out}) {
      for (ops::Tensor& t : *list) {
        t.data = next;
        next += aligned(t.bytes());
      }
    }
    for (const ops::Tensor& t : problem.in)
      fill(t);
    launch = problem.launch();
    launch.workspace = next;
    launch.queue = &device.queue();
  }

  double run_us(const ops::Tactic& tactic, device::Device& device) {
    const auto start = std::chrono::steady_clock::now();
    tactic.run(launch);
    device.synchronize();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    return took.count();
  }

  // True when sampled outputs agree with float64, or the op has no exact form to compare with.
  bool right() const {
    if (problem.op->exact == nullptr || problem.out[0].dtype != ir::DType::kF32) return true;
    const int64_t count = problem.out[0].count();
    double largest = 0, worst = 0;
    for (int i = 0; i < kSamples; ++i) {
      const int64_t index = sample_index(i, count);
      const double exact = problem.op->exact(launch, index);
      largest = std::max(largest, std::abs(exact));
      const double got = problem.out[0].as<float>()[index];
      worst = std::max(worst, std::isfinite(got) ? std::abs(got - exact)
                                                 : std::numeric_limits<double>::infinity());
    }
    return worst <= kTolerance * largest;
  }

  Problem problem;
  std::unique_ptr<device::Memory> memory;
  ops::Launch launch;
};

void Profiler::note(const ops::Tactic& tactic, const Problem& problem, const std::string& why) {
  notes_.push_back(str("tactic ", tactic.name, " dropped for ", problem.key(), ": ", why));
  log::debug(notes_.back());
}

const ops::Tactic* Profiler::fastest(const Problem& problem,
                                     const std::vector<const ops::Tactic*>& tactics) {
  const std::string key = problem.key();
  if (const auto it = decided_.find(key); it != decided_.end()) return it->second;
  const ops::Tactic* best = nullptr;
  double best_us = std::numeric_limits<double>::infinity();
  for (const ops::Tactic* tactic : tactics) {
    double us = 0;
    if (const auto cached = cache_.find(key, tactic->name)) {
      us = *cached;
      ++from_cache_;
    } else {
      const int64_t workspace = tactic->workspace == nullptr
                                    ? 0
                                    : tactic->workspace(problem.launch(), device_.properties());
      int64_t bytes = workspace;
      for (const auto* list : {&problem.in, &problem.out}) {
        for (const ops::Tensor& t : *list)
          bytes += t.bytes();
      }
      if (bytes > max_bytes_) {
        note(*tactic, problem,
             str("its trial needs ", format_bytes(bytes), ", the limit is ",
                 format_bytes(max_bytes_)));
        continue;
      }
      try {
        Trial trial(problem, device_, workspace);
        std::vector<double> times = {trial.run_us(*tactic, device_)};  // the first warms up
        if (!trial.right()) {
          note(*tactic, problem, "its outputs are wrong");
          continue;
        }
        const double first = times[0];
        const int runs = std::clamp(static_cast<int>(kMaxTrialUs / first), 0, kMaxRuns);
        if (runs > 0) times.clear();
        for (int i = 0; i < runs; ++i)
          times.push_back(trial.run_us(*tactic, device_));
        us = median(std::move(times));
      } catch (const Error& error) {
        note(*tactic, problem, error.what());
        continue;
      }
      ++timed_;
      cache_.add(key, tactic->name, us);
    }
    if (us < best_us) {
      best_us = us;
      best = tactic;
    }
  }
  if (best == nullptr) best = tactics[0];
  decided_[key] = best;
  return best;
}

}  // namespace millrace::compiler
