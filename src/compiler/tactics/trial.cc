#include "compiler/tactics/trial.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "base/check.h"
#include "base/thread_pool.h"
#include "device/named_range.h"
#include "device/time_launches.h"
#include "ops/embedding/embedding.h"
#include "ops/moe_matmul/moe_matmul.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::compiler {
namespace {

constexpr int kMaxRuns = 9;
constexpr double kMaxTrialUs = 60'000;  // of one tactic on one problem, all runs together
constexpr double kMaxDeviceUs = 1'000;  // likewise where launches are timed in batches
constexpr int kMaxBatch = 8;            // launches of such a batch
constexpr double kBatchUs = 500;        // or fewer, but two, that take so long
constexpr double kFar = 1.25;           // times the best so far: not measured twice
constexpr double kHopeless = 3;         // likewise: no batch of them is measured at all
constexpr double kHostUs = 50;          // of a single run, more or less, is the host's
constexpr int kSamples = 64;            // outputs compared with float64
constexpr double kTolerance = 2e-2;     // of the largest exact sample: catches wrong, not inexact

// After so many a tensor's numbers repeat. A prime number, so that two rows of a matrix are the
// same only if they are far from each other.
constexpr int64_t kPages = 509;

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

// Where sample `i` of `count` outputs lies: the end, then multiples of the golden ratio, which meet
// every column of a matrix whatever its width (even steps would stay in one).
int64_t sample_index(int i, int64_t count) {
  if (i == 0) return count - 1;
  const uint64_t turns = static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u;
  return static_cast<int64_t>(static_cast<double>(turns >> 11) * 0x1p-53 *
                              static_cast<double>(count));
}

// How many things the integers of a problem name: experts, rows of a table. Those of other ops are
// lengths, positions and the like, for which 0 is valid: one.
int64_t named_by_ids(const Problem& problem) {
  const std::string_view op = problem.op->name;
  const void* attributes = problem.attributes.get();
  if (op == ops::MoeMatmul::kName) return static_cast<const ops::MoeMatmul*>(attributes)->experts;
  if (op == ops::Embedding::kName) {
    return problem.in[1].dim(0) - static_cast<const ops::Embedding*>(attributes)->offset;
  }
  return 1;
}

// As a router of experts or a text would have it: rows go anywhere, and the choices of one row are
// not the same.
std::shared_ptr<std::vector<int32_t>> make_ids(const ops::Tensor& tensor, int64_t named) {
  const int64_t choices = tensor.rank > 1 ? tensor.dim(-1) : 1;
  auto ids = std::make_shared<std::vector<int32_t>>(static_cast<size_t>(tensor.count()));
  std::mt19937 random;
  int64_t first = 0;
  for (int64_t i = 0; i < tensor.count(); ++i) {
    if (i % choices == 0) first = static_cast<int64_t>(random());
    (*ids)[static_cast<size_t>(i)] = static_cast<int32_t>((first + i % choices) % named);
  }
  return ids;
}

// What launches read and write, which is not all of a weight where experts are chosen.
int64_t touched_bytes(std::span<const Problem> problems) {
  int64_t touched = 0;
  for (const Problem& problem : problems) {
    const int64_t bytes = Trial::tensor_bytes({&problem, 1});
    touched +=
        problem.op->cost == nullptr
            ? bytes
            : std::min(bytes, static_cast<int64_t>(problem.op->cost(problem.launch()).bytes));
  }
  return std::max<int64_t>(touched, 1);
}

}  // namespace

// Tensors of problems with memory behind them. The spans of the launches are theirs.
struct TrialStore::Placed {
  explicit Placed(std::span<const Problem> problems) {
    for (const Problem& problem : problems) {
      in.push_back(problem.in);
      out.push_back(problem.out);
      launches.push_back(problem.launch());
    }
    for (size_t i = 0; i < launches.size(); ++i) {
      launches[i].in = in[i];
      launches[i].out = out[i];
    }
  }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;

  std::vector<std::vector<ops::Tensor>> in, out;  // by problem
  std::vector<ops::Launch> launches;
};

// The numbers of one tensor, `copies` times on the device.
class TrialStore::Contents {
 public:
  /// `host`: the same where the host can read them, if it cannot on the device.
  Contents(const ops::Tensor& tensor, int64_t copies, device::Device& device,
           std::shared_ptr<std::byte> host = nullptr)
      : dtype_(tensor.dtype),
        count_(tensor.count()),
        stride_(aligned(tensor.bytes())),
        copies_(copies),
        device_(device.allocate(std::max<int64_t>(copies * stride_, 64), "tactic trial")),
        host_(std::move(host)) {}
  /// Whether another problem can take this over. Integers follow from the problem, and are few.
  bool fits(const ops::Tensor& tensor, int64_t copies) const {
    return dtype_ != ir::DType::kI32 && dtype_ == tensor.dtype && count_ == tensor.count() &&
           copies_ >= copies;
  }
  /// Bytes beyond so many copies.
  int64_t surplus(int64_t copies) const { return (copies_ - copies) * stride_; }
  std::byte* host() const { return host_ ? host_.get() : device_->data(); }
  std::byte* on_device(int64_t copy) const { return device_->data() + copy * stride_; }

 private:
  ir::DType dtype_;
  int64_t count_, stride_, copies_;
  std::unique_ptr<device::Memory> device_;
  std::shared_ptr<std::byte> host_;
};

// A norm of one row. In an engine something like it stands between products, and what counts is how
// much longer a product makes such a chain: some fetch weights while the small kernel runs, others
// cannot start before its end.
class TrialStore::SmallKernel {
 public:
  explicit SmallKernel(device::Device& device) : problem_(norm()) {
    const int64_t bytes = problem_.in[0].bytes();
    memory_ = device.allocate(3 * bytes, "a small kernel");  // zeros: x, weight, output
    problem_.in[0].data = memory_->data();
    problem_.in[1].data = memory_->data() + bytes;
    problem_.out[0].data = memory_->data() + 2 * bytes;
    placed_ = std::make_unique<Placed>(std::span(&problem_, 1));
    placed_->launches[0].queue = &device.queue();
    for (const ops::Tactic& tactic : problem_.op->tactics) {
      if (tactic.device != device.properties().kind) continue;
      if (tactic.why_not != nullptr &&
          !tactic.why_not(placed_->launches[0], device.properties()).empty()) {
        continue;
      }
      tactic_ = &tactic;
      break;
    }
    CHECK(tactic_ != nullptr && tactic_->workspace == nullptr);
    enqueue();  // loads it
  }

  void enqueue() const { tactic_->run(placed_->launches[0]); }

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

TrialStore::TrialStore(device::Device& device) : device_(device) {}

TrialStore::~TrialStore() = default;

// Deterministic numbers in [-1, 1), enough to tell a right product from a wrong one.
const TrialStore::Numbers& TrialStore::numbers(ir::DType dtype) {
  Numbers& numbers = numbers_[dtype];
  if (!numbers.bytes.empty()) return numbers;
  numbers.bytes.resize(static_cast<size_t>(kPages * RepeatedBytes::page_bytes()));
  const int64_t count = std::ssize(numbers.bytes) / ir::dtype_size(dtype);
  const ops::Tensor all(numbers.bytes.data(), dtype, std::array{count});
  uint32_t state = 0x9e3779b9;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    set(all, i, static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f);
  }
  if (device_.is_asynchronous()) {
    numbers.repeated = std::make_unique<RepeatedBytes>(numbers.bytes);
  }
  return numbers;
}

// Weights of gigabytes are neither written by the host nor sent to the device: that repeats what it
// has.
std::shared_ptr<const TrialStore::Contents> TrialStore::make_input(const ops::Tensor& tensor,
                                                                   int64_t copies, int64_t named) {
  if (tensor.dtype == ir::DType::kI32) return make_input_of_ids(tensor, copies, named);
  const Numbers& all = numbers(tensor.dtype);
  const int64_t bytes = tensor.bytes(), period = std::ssize(all.bytes);
  if (!device_.is_asynchronous()) {
    auto contents = std::make_shared<Contents>(tensor, copies, device_);
    device_.queue().pool->parallel_for((bytes + period - 1) / period, [&](int64_t i) {
      std::memcpy(contents->host() + i * period, all.bytes.data(),
                  static_cast<size_t>(std::min(period, bytes - i * period)));
    });
    return contents;
  }
  auto contents = std::make_shared<Contents>(tensor, copies, device_, all.repeated->map(bytes));
  std::byte* first = contents->on_device(0);
  int64_t done = std::min(bytes, period);
  device_.copy_to_device(first, all.bytes.data(), done);
  while (done < bytes) {
    const int64_t more = std::min(done, bytes - done);
    device_.copy_to_device(first + done, first, more);
    done += more;
  }
  for (int64_t i = 1; i < copies; ++i)
    device_.copy_to_device(contents->on_device(i), first, bytes);
  return contents;
}

std::shared_ptr<const TrialStore::Contents> TrialStore::make_input_of_ids(const ops::Tensor& tensor,
                                                                          int64_t copies,
                                                                          int64_t named) {
  const auto ids = make_ids(tensor, named);
  auto* bytes = reinterpret_cast<std::byte*>(ids->data());
  auto contents =
      std::make_shared<Contents>(tensor, copies, device_, std::shared_ptr<std::byte>(ids, bytes));
  for (int64_t i = 0; i < copies; ++i)
    device_.copy_to_device(contents->on_device(i), bytes, tensor.bytes());
  return contents;
}

std::byte* TrialStore::workspace(int64_t bytes) {
  if (bytes == 0) return nullptr;
  if (workspace_ == nullptr || workspace_->size() < bytes) {
    workspace_.reset();
    workspace_ = device_.allocate(bytes, "workspace of trials");
  }
  return workspace_->data();
}

// Keeps the inputs of the last trial that this one has too. They may be more copies than it needs:
// as long as there is room for them.
void TrialStore::make_room(std::span<const Problem> problems, int64_t copies, int64_t room) {
  std::erase_if(inputs_, [&](const auto& contents) {
    return std::none_of(problems.begin(), problems.end(), [&](const Problem& problem) {
      return std::any_of(problem.in.begin(), problem.in.end(),
                         [&](const ops::Tensor& t) { return contents->fits(t, copies); });
    });
  });
  int64_t needed = copies * Trial::tensor_bytes(problems);
  for (const auto& contents : inputs_)
    needed += contents->surplus(copies);
  if (needed <= room) return;
  std::erase_if(inputs_, [&](const auto& contents) { return contents->surplus(copies) > 0; });
}

int64_t Trial::tensor_bytes(std::span<const Problem> problems) {
  int64_t bytes = 0;
  for (const Problem& problem : problems) {
    for (const auto* list : {&problem.in, &problem.out}) {
      for (const ops::Tensor& t : *list)
        bytes += aligned(t.bytes());
    }
  }
  return bytes;
}

Trial::Trial(std::span<const Problem> problems, std::span<const Flow> flow, TrialStore& store,
             int64_t workspace_bytes, int64_t max_bytes)
    : problems_(problems),
      flow_(flow),
      store_(store),
      device_(store.device_),
      host_(std::make_unique<Placed>(problems)),
      exact_(problems.size()) {
  const int64_t bytes = std::max<int64_t>(tensor_bytes(problems), 1);
  if (store.workspace_ && store.workspace_->size() + bytes > max_bytes) store.workspace_.reset();
  const int64_t kept = store.workspace_ ? store.workspace_->size() : 0;
  const int64_t room = max_bytes - std::max(kept, workspace_bytes);
  int64_t copies = 1;
  if (device_.is_asynchronous()) {
    const int64_t launches = 2 * device_.properties().l2_bytes / touched_bytes(problems) + 1;
    copies = std::min(launches, room / bytes);
    copies = std::clamp<int64_t>(copies, 1, int64_t{kMaxBatch});
  }
  store.make_room(problems, copies, room);
  for (size_t i = 0; i < problems.size(); ++i) {
    const int64_t named = named_by_ids(problems[i]);
    for (ops::Tensor& t : host_->in[i]) {
      inputs_.push_back(input(t, copies, named));
      t.data = inputs_.back()->host();
    }
  }
  store.inputs_ = inputs_;
  for (const Problem& problem : problems) {
    for (const ops::Tensor& t : problem.out)
      outputs_.push_back(std::make_shared<Contents>(t, copies, device_));
  }
  for (int64_t i = 0; i < copies; ++i) {
    copies_.push_back(std::make_unique<Placed>(problems));
    Placed& copy = *copies_.back();
    auto from = inputs_.begin(), to = outputs_.begin();
    for (size_t p = 0; p < problems.size(); ++p) {
      for (ops::Tensor& t : copy.in[p])
        t.data = (*from++)->on_device(i);
      for (ops::Tensor& t : copy.out[p])
        t.data = (*to++)->on_device(i);
      copy.launches[p].queue = &device_.queue();
    }
  }
  device_.synchronize();
}

Trial::~Trial() = default;

// No two tensors share one: a cache would hold what the first has read.
std::shared_ptr<const Trial::Contents> Trial::input(const ops::Tensor& tensor, int64_t copies,
                                                    int64_t named) {
  for (const auto& contents : store_.inputs_) {
    const bool is_taken = std::find(inputs_.begin(), inputs_.end(), contents) != inputs_.end();
    if (!is_taken && contents->fits(tensor, copies)) return contents;
  }
  return store_.make_input(tensor, copies, named);
}

std::optional<double> Trial::time(const char* name, Run run, int64_t workspace_bytes,
                                  double best_us) {
  const device::NamedRange range(device_.properties().kind, name);
  std::byte* const workspace = store_.workspace(workspace_bytes);
  for (const auto& copy : copies_) {
    for (ops::Launch& launch : copy->launches)
      launch.workspace = workspace;  // they run one after the other
  }
  join(false);
  const double first_us = run_us(run);  // warms up
  if (!right()) return std::nullopt;
  join(true);
  return device_.is_asynchronous() ? median_device_us(run, first_us, best_us)
                                   : median_us(run, first_us, best_us);
}

// Whether launches read what others write, or inputs of their own.
void Trial::join(bool joined) {
  for (const Flow& flow : flow_) {
    size_t own = flow.input;
    for (size_t p = 0; p < flow.to; ++p)
      own += problems_[p].in.size();
    for (size_t i = 0; i < copies_.size(); ++i) {
      Placed& copy = *copies_[i];
      copy.in[flow.to][flow.input].data =
          joined ? copy.out[flow.from][0].data : inputs_[own]->on_device(static_cast<int64_t>(i));
    }
  }
}

double Trial::run_us(Run run) {
  const auto start = std::chrono::steady_clock::now();
  run(copies_[0]->launches);
  device_.synchronize();
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  return took.count();
}

double Trial::median_us(Run run, double first_us, double best_us) {
  const int runs = std::clamp(static_cast<int>(kMaxTrialUs / first_us), 0, kMaxRuns);
  std::vector<double> times;
  while (static_cast<int>(times.size()) < runs) {
    times.push_back(run_us(run));
    if (times.size() == 1 && std::min(first_us, times[0]) > kFar * best_us) break;
  }
  return times.empty() ? first_us : device::median(std::move(times));
}

double Trial::median_device_us(Run run, double first_us, double best_us) {
  double single_us = first_us;
  const double hopeless_us = kHopeless * best_us + kHostUs;
  if (first_us > std::min(hopeless_us, 2 * kHostUs)) {  // or its kernel was loaded just now
    single_us = run_us(run);
    if (single_us > hopeless_us) return single_us;
  }
  if (store_.between_ == nullptr) {
    store_.between_ = std::make_unique<TrialStore::SmallKernel>(device_);
  }
  const int batch = std::clamp(static_cast<int>(kBatchUs / single_us), 2, kMaxBatch);
  const auto replays = [&](double first_s) {
    const double us = 1e6 * first_s;
    if (us > kFar * best_us) return 1;
    return std::clamp(static_cast<int>(kMaxDeviceUs / batch / us), 1, kMaxRuns);
  };
  return 1e6 * device::median(device::time_warm_launches(device_, batch, replays, [&](int i) {
           store_.between_->enqueue();
           run(copies_[static_cast<size_t>(i) % copies_.size()]->launches);
         }));
}

bool Trial::right() {
  for (size_t i = 0; i < problems_.size(); ++i) {
    if (!right(i)) return false;
  }
  return true;
}

// True when sampled outputs agree with float64, or the op has no exact form to compare with.
bool Trial::right(size_t problem) {
  const auto exact_of = problems_[problem].op->exact;
  const ops::Tensor& out = copies_[0]->out[problem][0];
  if (exact_of == nullptr || !ir::is_float(out.dtype)) return true;
  std::vector<double>& exacts = exact_[problem];
  if (exacts.empty()) {
    exacts.resize(kSamples);
    device_.queue().pool->parallel_for(kSamples, [&](int64_t i) {
      exacts[static_cast<size_t>(i)] =
          exact_of(host_->launches[problem], sample_index(static_cast<int>(i), out.count()));
    });
  }
  const ops::Tensor samples = fetch_samples(out);
  double largest = 0, worst = 0;
  for (int i = 0; i < kSamples; ++i) {
    const double exact = exacts[static_cast<size_t>(i)];
    largest = std::max(largest, std::abs(exact));
    const double got = get(samples, i);
    worst = std::max(worst, std::isfinite(got) ? std::abs(got - exact)
                                               : std::numeric_limits<double>::infinity());
  }
  return worst <= kTolerance * largest;
}

// Those outputs that are compared: all of a large one would take longer than the tactic.
ops::Tensor Trial::fetch_samples(const ops::Tensor& out) {
  if (store_.samples_ == nullptr) {
    store_.samples_ =
        device_.allocate_host(kSamples * int64_t{sizeof(float)}, "samples of a trial");
  }
  const ops::Tensor samples(store_.samples_->data(), out.dtype, std::array{int64_t{kSamples}});
  const int64_t size = ir::dtype_size(out.dtype);
  for (int i = 0; i < kSamples; ++i) {
    device_.enqueue_copy_to_host(samples.as<std::byte>() + i * size,
                                 out.as<std::byte>() + sample_index(i, out.count()) * size, size);
  }
  device_.synchronize();
  return samples;
}

}  // namespace millrace::compiler
