#include "compiler/tactics/profiler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/log.h"
#include "device/named_range.h"
#include "device/time_launches.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::compiler {
namespace {

constexpr int kMaxRuns = 9;
constexpr double kMaxTrialUs = 60'000;  // of one tactic on one problem, all runs together
constexpr double kMaxDeviceUs = 3'000;  // likewise where launches are timed in batches
constexpr int kBatch = 8;               // launches of such a batch
constexpr double kHopeless = 3;         // times the best so far, in a run with the host's share
constexpr int kSamples = 64;            // outputs compared with float64
constexpr double kTolerance = 2e-2;     // of the largest exact sample: catches wrong, not inexact

int64_t aligned(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

void set(const ops::Tensor& tensor, int64_t i, float value) {
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
      break;
  }
}

double get(const ops::Tensor& tensor, int64_t i) {
  switch (tensor.dtype) {
    case ir::DType::kBF16:
      return ir::bf16_to_float(tensor.as<uint16_t>()[i]);
    case ir::DType::kF16:
      return ir::f16_to_float(tensor.as<uint16_t>()[i]);
    default:
      return tensor.as<float>()[i];
  }
}

// Deterministic numbers in [-1, 1), enough to tell a right product from a wrong one: they repeat
// after a prime number of elements, so that no two rows of a matrix are the same. Ids and the like
// are 0: valid for every op.
void fill(const ops::Tensor& tensor) {
  if (tensor.dtype != ir::DType::kF32 && tensor.dtype != ir::DType::kBF16 &&
      tensor.dtype != ir::DType::kF16) {
    std::memset(tensor.data, 0, static_cast<size_t>(tensor.bytes()));
    return;
  }
  constexpr int64_t kPeriod = 1'048'573;
  uint32_t state = 0x9e3779b9;
  const int64_t count = tensor.count(), drawn = std::min(count, kPeriod);
  for (int64_t i = 0; i < drawn; ++i) {
    state = state * 1664525u + 1013904223u;
    set(tensor, i, static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f);
  }
  const int64_t size = ir::dtype_size(tensor.dtype);
  auto* bytes = tensor.as<std::byte>();
  for (int64_t done = drawn; done < count; done += drawn) {
    std::memcpy(bytes + done * size, bytes,
                static_cast<size_t>(std::min(drawn, count - done) * size));
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

// Tensors of a problem with memory behind them. The spans of the launch are theirs.
struct Placed {
  explicit Placed(const Problem& problem) : in(problem.in), out(problem.out) {
    launch = problem.launch();
    launch.in = in;
    launch.out = out;
  }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;

  std::vector<ops::Tensor> in, out;
  ops::Launch launch;
};

int64_t tensor_bytes(const Problem& problem) {
  int64_t bytes = 0;
  for (const auto* list : {&problem.in, &problem.out}) {
    for (const ops::Tensor& t : *list)
      bytes += aligned(t.bytes());
  }
  return bytes;
}

}  // namespace

// The numbers of one tensor, `copies` times on the device, and on the host where that cannot read
// the device's memory.
class Profiler::Contents {
 public:
  Contents(const ops::Tensor& tensor, int64_t copies, device::Device& device)
      : dtype_(tensor.dtype),
        count_(tensor.count()),
        stride_(aligned(tensor.bytes())),
        copies_(copies) {
    device_ = device.allocate(std::max<int64_t>(copies * stride_, 64), "tactic trial");
    if (device.is_asynchronous()) {
      host_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(stride_));
    }
  }
  bool fits(const ops::Tensor& tensor, int64_t copies) const {
    return dtype_ == tensor.dtype && count_ == tensor.count() && copies_ >= copies;
  }
  std::byte* host() const { return host_ ? host_.get() : device_->data(); }
  std::byte* on_device(int64_t copy) const { return device_->data() + copy * stride_; }

 private:
  ir::DType dtype_;
  int64_t count_, stride_, copies_;
  std::unique_ptr<device::Memory> device_;
  std::unique_ptr<std::byte[]> host_;
};

// A norm of one row. In an engine something like it stands between products, and what counts is how
// much longer a product makes such a chain: some fetch weights while the small kernel runs, others
// cannot start before its end.
class Profiler::SmallKernel {
 public:
  explicit SmallKernel(device::Device& device) : problem_(norm()) {
    const int64_t bytes = problem_.in[0].bytes();
    memory_ = device.allocate(3 * bytes, "a small kernel");  // zeros: x, weight, output
    problem_.in[0].data = memory_->data();
    problem_.in[1].data = memory_->data() + bytes;
    problem_.out[0].data = memory_->data() + 2 * bytes;
    placed_ = std::make_unique<Placed>(problem_);
    placed_->launch.queue = &device.queue();
    for (const ops::Tactic& tactic : problem_.op->tactics) {
      if (tactic.device != device.properties().kind) continue;
      if (tactic.why_not != nullptr &&
          !tactic.why_not(placed_->launch, device.properties()).empty()) {
        continue;
      }
      tactic_ = &tactic;
      break;
    }
    CHECK(tactic_ != nullptr && tactic_->workspace == nullptr);
  }

  void enqueue() const { tactic_->run(placed_->launch); }

 private:
  static Problem norm() {
    constexpr int64_t kWidth = 4096;
    Problem problem;
    problem.op = ops::find_op(ops::RmsNorm::kName);
    problem.attributes = problem.op->parse_attrs({});
    const ops::Tensor row(nullptr, ir::DType::kBF16, std::array{int64_t{1}, kWidth});
    problem.in = {row, ops::Tensor(nullptr, ir::DType::kBF16, std::array{kWidth})};
    problem.out = {row};
    return problem;
  }

  Problem problem_;
  std::unique_ptr<device::Memory> memory_;
  std::unique_ptr<Placed> placed_;
  const ops::Tactic* tactic_ = nullptr;
};

// The memory of a problem, to run it in one way after the other. On an asynchronous device there
// are so many copies of it that its cache cannot hold what the next launch reads.
class Profiler::Trial {
 public:
  // `kept` are the inputs of the trial before and become those of this one: a weight is the same
  // for every number of rows.
  Trial(const Problem& problem, device::Device& device, int64_t max_bytes,
        std::vector<std::shared_ptr<const Contents>>& kept)
      : problem_(problem), device_(device), host_(problem) {
    const int64_t bytes = std::max<int64_t>(tensor_bytes(problem), 1);
    int64_t copies = 1;
    if (device.is_asynchronous()) {
      copies = std::min(2 * device.properties().l2_bytes / bytes + 1, max_bytes / bytes);
      copies = std::clamp<int64_t>(copies, 1, int64_t{kBatch});
    }
    std::erase_if(kept, [&](const auto& contents) {
      return std::none_of(problem.in.begin(), problem.in.end(),
                          [&](const ops::Tensor& t) { return contents->fits(t, copies); });
    });
    for (ops::Tensor& t : host_.in)
      inputs_.push_back(input(t, copies, kept));
    kept = inputs_;
    for (ops::Tensor& t : host_.out) {
      outputs_.push_back(std::make_shared<Contents>(t, copies, device));
      t.data = outputs_.back()->host();
    }
    for (int64_t i = 0; i < copies; ++i) {
      copies_.push_back(std::make_unique<Placed>(problem));
      Placed& copy = *copies_.back();
      for (size_t k = 0; k < copy.in.size(); ++k)
        copy.in[k].data = inputs_[k]->on_device(i);
      for (size_t k = 0; k < copy.out.size(); ++k)
        copy.out[k].data = outputs_[k]->on_device(i);
      copy.launch.queue = &device.queue();
    }
    device.synchronize();
  }

  // Median microseconds of a launch, or nothing when its outputs are wrong. On an asynchronous
  // device those of the launch and of `between`, in a chain of both.
  // One that takes more than `enough_us` is not measured more than roughly.
  std::optional<double> time(const ops::Tactic& tactic, int64_t workspace_bytes, double enough_us,
                             const SmallKernel* between) {
    const device::NamedRange range(device_.properties().kind, tactic.name);
    const auto workspace =
        device_.allocate(std::max<int64_t>(workspace_bytes, 64), "workspace of a trial");
    for (const auto& copy : copies_)
      copy->launch.workspace = workspace->data();
    const double first = run_us(tactic);  // warms up
    if (!right()) return std::nullopt;
    if (device_.is_asynchronous()) {
      const double second = run_us(tactic);
      if (second > enough_us) return second;
      const int runs = std::clamp(static_cast<int>(kMaxDeviceUs / kBatch / second), 1, kMaxRuns);
      return 1e6 * device::median(device::time_launches(device_, kBatch, runs, [&](int i) {
               between->enqueue();
               tactic.run(copies_[static_cast<size_t>(i) % copies_.size()]->launch);
             }));
    }
    const int runs = std::clamp(static_cast<int>(kMaxTrialUs / first), 0, kMaxRuns);
    std::vector<double> times;
    for (int i = 0; i < runs; ++i)
      times.push_back(run_us(tactic));
    return times.empty() ? first : device::median(std::move(times));
  }

 private:
  double run_us(const ops::Tactic& tactic) {
    const auto start = std::chrono::steady_clock::now();
    tactic.run(copies_[0]->launch);
    device_.synchronize();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    return took.count();
  }

  // True when sampled outputs agree with float64, or the op has no exact form to compare with.
  bool right() {
    const ops::Tensor& out = host_.out[0];
    if (problem_.op->exact == nullptr || !ir::is_float(out.dtype)) return true;
    if (device_.is_asynchronous()) fetch_samples(out);
    if (exact_.empty()) {
      for (int i = 0; i < kSamples; ++i)
        exact_.push_back(problem_.op->exact(host_.launch, sample_index(i, out.count())));
    }
    double largest = 0, worst = 0;
    for (int i = 0; i < kSamples; ++i) {
      const double exact = exact_[static_cast<size_t>(i)];
      largest = std::max(largest, std::abs(exact));
      const double got = get(out, sample_index(i, out.count()));
      worst = std::max(worst, std::isfinite(got) ? std::abs(got - exact)
                                                 : std::numeric_limits<double>::infinity());
    }
    return worst <= kTolerance * largest;
  }

  // Those outputs that are compared: all of a large one would take longer than the tactic.
  void fetch_samples(const ops::Tensor& out) {
    const int64_t size = ir::dtype_size(out.dtype);
    for (int i = 0; i < kSamples; ++i) {
      const int64_t offset = sample_index(i, out.count()) * size;
      device_.copy_to_host(out.as<std::byte>() + offset,
                           static_cast<const std::byte*>(copies_[0]->out[0].data) + offset, size);
    }
  }

  // The contents of an input, which gets its host address.
  std::shared_ptr<const Contents> input(ops::Tensor& t, int64_t copies,
                                        std::span<const std::shared_ptr<const Contents>> kept) {
    for (const auto& contents : kept) {
      if (!contents->fits(t, copies)) continue;
      t.data = contents->host();
      return contents;
    }
    auto contents = std::make_shared<Contents>(t, copies, device_);
    t.data = contents->host();
    fill(t);
    for (int64_t i = 0; i < copies && device_.is_asynchronous(); ++i)
      device_.copy_to_device(contents->on_device(i), t.data, t.bytes());
    return contents;
  }

  const Problem& problem_;
  device::Device& device_;
  std::vector<std::shared_ptr<const Contents>> inputs_, outputs_;
  Placed host_;  // what exact numbers are computed from; on the CPU the memory that tactics use
  std::vector<double> exact_;  // of the samples, the same for all tactics
  std::vector<std::unique_ptr<Placed>> copies_;
};

Profiler::Profiler(device::Device& device, TimingCache& cache, int64_t max_bytes)
    : device_(device), cache_(cache), max_bytes_(max_bytes) {}

Profiler::~Profiler() = default;

void Profiler::note(const ops::Tactic& tactic, const Problem& problem, const std::string& why) {
  notes_.push_back(str("tactic ", tactic.name, " dropped for ", problem.key(), ": ", why));
  log::debug(notes_.back());
}

// Nothing when the tactic is dropped, with a note.
std::optional<double> Profiler::time(const ops::Tactic& tactic, const Problem& problem,
                                     double best_us, std::unique_ptr<Trial>& trial) {
  const int64_t workspace =
      tactic.workspace == nullptr ? 0 : tactic.workspace(problem.launch(), device_.properties());
  const int64_t bytes = tensor_bytes(problem) + workspace;
  if (bytes > max_bytes_) {
    note(tactic, problem,
         str("its trial needs ", format_bytes(bytes), ", the limit is ", format_bytes(max_bytes_)));
    return std::nullopt;
  }
  try {
    if (trial == nullptr) {
      trial = std::make_unique<Trial>(problem, device_, max_bytes_ - workspace, kept_);
    }
    if (device_.is_asynchronous() && between_ == nullptr) {
      between_ = std::make_unique<SmallKernel>(device_);
    }
    const std::optional<double> us =
        trial->time(tactic, workspace, kHopeless * best_us, between_.get());
    if (!us) note(tactic, problem, "its outputs are wrong");
    return us;
  } catch (const Error& error) {
    note(tactic, problem, error.what());
    return std::nullopt;
  }
}

const ops::Tactic* Profiler::fastest(const Problem& problem,
                                     const std::vector<const ops::Tactic*>& tactics) {
  const std::string key = problem.key();
  if (const auto it = decided_.find(key); it != decided_.end()) return it->second;
  const ops::Tactic* best = nullptr;
  double best_us = std::numeric_limits<double>::infinity();
  std::unique_ptr<Trial> trial;  // made when the first time is not in the cache
  for (const ops::Tactic* tactic : tactics) {
    std::optional<double> us = cache_.find(key, tactic->name);
    if (us) {
      ++from_cache_;
    } else {
      us = time(*tactic, problem, best_us, trial);
      if (!us) continue;
      ++timed_;
      cache_.add(key, tactic->name, *us);
    }
    if (*us < best_us) {
      best_us = *us;
      best = tactic;
    }
  }
  if (best == nullptr) best = tactics[0];
  decided_[key] = best;
  return best;
}

}  // namespace millrace::compiler
