// The profiler with tactics made for the test: right, slow, wrong, too large.
#include "compiler/tactics/profiler.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "base/error.h"
#include "compiler/passes/plan_passes.h"
#include "ops/embedding/embedding.h"
#include "ops/matmul/matmul.h"
#include "ops/moe_matmul/moe_matmul.h"

namespace millrace::compiler {
namespace {

constexpr int64_t kPlenty = int64_t{1} << 30;

void run_reference(const ops::Launch& launch) {
  ops::find_op(ops::Matmul::kName)->tactics.back().run(launch);
}
int slow_runs = 0;
void run_slowly(const ops::Launch& launch) {
  ++slow_runs;
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  run_reference(launch);
}
void run_idle(const ops::Launch&) {}
// One wrong weight row in four: all other outputs are right.
void run_partly(const ops::Launch& launch) {
  run_reference(launch);
  const ops::Tensor& out = launch.out[0];
  for (int64_t i = 0; i < out.count(); i += 4)
    out.as<float>()[i] *= -1;
}
// Right in the first column only, and right everywhere but in the last element.
void run_first_column(const ops::Launch& launch) {
  run_reference(launch);
  const ops::Tensor& out = launch.out[0];
  for (int64_t i = 0; i < out.count(); ++i)
    out.as<float>()[i] *= i % out.dim(-1) == 0 ? 1.0f : -1.0f;
}
void run_short(const ops::Launch& launch) {
  run_reference(launch);
  launch.out[0].as<float>()[launch.out[0].count() - 1] = 1e3f;
}
void run_to_nan(const ops::Launch& launch) {
  std::memset(launch.out[0].data, 0xff, static_cast<size_t>(launch.out[0].bytes()));
}
void run_and_fail(const ops::Launch&) {
  throw_failed("no such luck", "the test", "none");
}
int64_t gigabytes(const ops::Launch&, const device::Properties&) {
  return int64_t{1} << 40;
}

// Counts its launches by what ran last: the small kernel, which overwrites the mark, or another
// one.
constexpr auto kMark = std::byte{0xff};
std::byte* small_kernel_output = nullptr;
int launches_after_small_kernel = 0, launches_after_launch = 0;
void run_and_watch(const ops::Launch& launch) {
  run_reference(launch);
  ++(*small_kernel_output == kMark ? launches_after_launch : launches_after_small_kernel);
  *small_kernel_output = kMark;
}

/// Takes so long, or longer where others want the CPU.
void spin(double us) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double, std::micro>(us);
  while (std::chrono::steady_clock::now() < end) {
  }
}
int counted_runs = 0;
void run_and_count(const ops::Launch& launch) {
  ++counted_runs;
  spin(60);
  run_reference(launch);
}
void run_in_10_us(const ops::Launch& launch) {
  spin(10);
  run_reference(launch);
}

ops::Tactic tactic(const char* name, void (*run)(const ops::Launch&)) {
  ops::Tactic made;
  made.name = name;
  made.run = run;
  return made;
}

const ops::Tactic kRight = tactic("right", run_reference), kSlow = tactic("slow", run_slowly),
                  kIdle = tactic("idle", run_idle), kPartly = tactic("partly", run_partly),
                  kNan = tactic("nan", run_to_nan), kColumn = tactic("column", run_first_column),
                  kShort = tactic("short", run_short), kFails = tactic("fails", run_and_fail),
                  kWatches = tactic("watches", run_and_watch),
                  kCounts = tactic("counts", run_and_count),
                  kTakes10Us = tactic("takes 10 us", run_in_10_us), kLibrary = [] {
                    ops::Tactic library = tactic("library", run_reference);
                    library.lets_next_start = false;
                    return library;
                  }();

Problem product(int64_t rows = 8, int64_t columns = 16) {
  ir::Graph graph("g");
  const ir::ValueId x = graph.add_input("x", {ir::DType::kF32, {rows, 32}});
  ir::Attrs name;
  name.set("name", std::string("w"));
  const ir::ValueId w = graph.add("weight", {}, {ir::DType::kF32, {columns, 32}}, name);
  return make_problem(graph, ops::add_node(graph, ops::Matmul::kName, {x, w}, {}), {});
}

/// Behaves towards its callers like a GPU: launches are captured and replayed, and what lies on the
/// device is reached by copies.
class AsyncDevice : public device::Device {
 public:
  const device::Properties& properties() const override { return properties_; }
  device::Queue& queue() override { return cpu_->queue(); }
  std::unique_ptr<device::Memory> allocate(int64_t bytes, const std::string& purpose) override {
    ++allocated[purpose];
    auto memory = std::make_unique<Metered>(cpu_->allocate(bytes, purpose), bytes_held, most_held);
    blocks_.emplace_back(memory->data(), static_cast<size_t>(bytes));
    if (purpose == "a small kernel") small_kernel_ = {memory->data(), static_cast<size_t>(bytes)};
    return memory;
  }
  /// The last of three tensors of one size.
  std::byte* small_kernel_output() const {
    return small_kernel_.data() + small_kernel_.size() / 3 * 2;
  }
  std::unique_ptr<device::Memory> allocate_host(int64_t bytes, const std::string& p) override {
    return cpu_->allocate_host(bytes, p);
  }
  void copy_to_device(void* target, const void* source, int64_t bytes) override {
    ++copies_to_device;
    const auto* from = static_cast<const std::byte*>(source);
    const auto inside = [&](const Block& b) {
      return std::less_equal<>()(b.data(), from) && std::less<>()(from, b.data() + b.size());
    };
    if (std::none_of(blocks_.begin(), blocks_.end(), inside)) bytes_from_host += bytes;
    cpu_->copy_to_device(target, source, bytes);
  }
  void copy_to_host(void* target, const void* source, int64_t bytes) override {
    cpu_->copy_to_host(target, source, bytes);
  }
  void enqueue_copy_to_host(void* target, const void* source, int64_t bytes) override {
    cpu_->enqueue_copy_to_host(target, source, bytes);
  }
  void synchronize() override {
    spin(synchronize_us);
    if (is_broken) throw Error(ErrorCode::kFailed, "unspecified launch failure");
  }
  std::unique_ptr<device::Event> make_event() override { return cpu_->make_event(); }
  std::unique_ptr<device::CapturedGraph> capture(FunctionRef<void()> work) override {
    return std::make_unique<Replay>(work);
  }
  std::unique_ptr<device::Hold> hold() override { return nullptr; }
  bool is_asynchronous() const override { return true; }
  int64_t free_bytes() const override { return cpu_->free_bytes(); }

  std::map<std::string, int> allocated;
  int copies_to_device = 0;
  int64_t bytes_from_host = 0;
  double synchronize_us = 0;
  bool is_broken = false;
  int64_t bytes_held = 0, most_held = 0;

 private:
  using Block = std::span<std::byte>;

  /// Memory that is counted while it is there.
  class Metered : public device::Memory {
   public:
    Metered(std::unique_ptr<device::Memory> memory, int64_t& held, int64_t& most)
        : memory_(std::move(memory)), held_(held) {
      held_ += memory_->size();
      most = std::max(most, held_);
    }
    Metered(const Metered&) = delete;
    Metered& operator=(const Metered&) = delete;
    ~Metered() override { held_ -= memory_->size(); }
    std::byte* data() const override { return memory_->data(); }
    int64_t size() const override { return memory_->size(); }

   private:
    std::unique_ptr<device::Memory> memory_;
    int64_t& held_;
  };

  /// Lives no longer than the work: its owner runs it before it returns.
  class Replay : public device::CapturedGraph {
   public:
    explicit Replay(FunctionRef<void()> work) : work_(work) {}
    void replay() override { work_(); }

   private:
    FunctionRef<void()> work_;
  };

  static device::Properties with_l2(device::Properties properties) {
    properties.l2_bytes = int64_t{2} << 20;
    return properties;
  }

  std::unique_ptr<device::Device> cpu_ = device::make_cpu_device(1);
  const device::Properties properties_ = with_l2(cpu_->properties());
  Block small_kernel_;
  std::vector<Block> blocks_;  // given out so far
};

class ProfilerTest : public testing::Test {
 protected:
  const std::unique_ptr<device::Device> device_ = device::make_cpu_device(1);
  TimingCache cache_{"", device_->properties(), ""};
};

TEST_F(ProfilerTest, TakesTheFastest) {
  Profiler profiler(*device_, cache_, kPlenty);
  EXPECT_EQ(profiler.fastest(product(), {&kSlow, &kRight}), &kRight);
  EXPECT_EQ(profiler.timed(), 2);
  EXPECT_TRUE(profiler.notes().empty());
  // Layers repeat: the same problem is not timed again.
  EXPECT_EQ(profiler.fastest(product(), {&kSlow, &kRight}), &kRight);
  EXPECT_EQ(profiler.timed(), 2);
}

TEST_F(ProfilerTest, CountsWhatTheNextLaunchLoses) {
  Profiler profiler(*device_, cache_, kPlenty);
  constexpr double kMuch = 1e6;
  EXPECT_EQ(profiler.fastest(product(), {&kSlow, &kLibrary}), &kLibrary);
  EXPECT_EQ(profiler.fastest(product(), {&kSlow, &kLibrary}, nullptr, kMuch), &kSlow);
  EXPECT_EQ(profiler.timed(), 2);  // the times are the same
  EXPECT_EQ(profiler.fastest(product(4), {&kLibrary, &kSlow}, nullptr, kMuch), &kSlow);
  EXPECT_EQ(profiler.fastest(product(2), {&kSlow, &kRight}, nullptr, kMuch), &kRight);
}

TEST_F(ProfilerTest, TakesTheFirstOfThoseThatAreAsFast) {
  Profiler profiler(*device_, cache_, kPlenty);
  const auto fastest = [&](double slow_us, double right_us, int64_t rows) {
    cache_.add(product(rows).key(), kSlow.name, slow_us);
    cache_.add(product(rows).key(), kRight.name, right_us);
    return profiler.fastest(product(rows), {&kSlow, &kRight});
  };
  EXPECT_EQ(fastest(100.5, 100, 2), &kSlow);
  EXPECT_EQ(fastest(103, 100, 3), &kRight);
  EXPECT_EQ(fastest(100, 100.5, 4), &kSlow);
  EXPECT_EQ(profiler.timed(), 0);
}

TEST_F(ProfilerTest, DropsWrongTacticsHoweverFast) {
  for (const ops::Tactic* wrong : {&kIdle, &kPartly, &kNan}) {
    SCOPED_TRACE(wrong->name);
    Profiler profiler(*device_, cache_, kPlenty);
    EXPECT_EQ(profiler.fastest(product(), {wrong, &kSlow}), &kSlow);
    ASSERT_EQ(profiler.notes().size(), 1u);
    EXPECT_EQ(profiler.notes()[0], str("tactic ", wrong->name, " dropped for ", product().key(),
                                       ": its outputs are wrong"));
    // A later build must not take it from the cache.
    EXPECT_EQ(cache_.find(product().key(), wrong->name), std::nullopt);
  }
}

TEST_F(ProfilerTest, TimesCapturedLaunches) {
  AsyncDevice device;
  Profiler profiler(device, cache_, kPlenty);
  EXPECT_EQ(profiler.fastest(product(), {&kSlow, &kRight, &kPartly, &kNan, &kFails}), &kRight);
  EXPECT_EQ(profiler.timed(), 2);
  EXPECT_EQ(profiler.notes().size(), 3u);
  EXPECT_LT(*cache_.find(product().key(), "right"), 5e3);
  EXPECT_GE(*cache_.find(product().key(), "slow"), 5e3);
}

// As products stand in an engine: what a launch adds to a chain is what counts, not how it follows
// itself. The launches of a replay never come one after the other.
TEST_F(ProfilerTest, TimesLaunchesWithASmallKernelBetween) {
  AsyncDevice device;
  Profiler profiler(device, cache_, kPlenty);
  profiler.fastest(product(), {&kRight});  // makes the small kernel
  ASSERT_EQ(device.allocated["a small kernel"], 1);
  device.small_kernel_output()[0] = kMark;
  small_kernel_output = device.small_kernel_output();
  profiler.fastest(product(9), {&kWatches});
  EXPECT_EQ(device.allocated["a small kernel"], 1);
  EXPECT_GE(launches_after_small_kernel, 16);  // eight launches, more than once
  EXPECT_LE(launches_after_launch, 3);         // to warm up
}

// What is far behind the best is not timed again and again.
TEST_F(ProfilerTest, TimesRoughlyWhatCannotWin) {
  Profiler profiler(*device_, cache_, kPlenty);
  counted_runs = 0;
  EXPECT_EQ(profiler.fastest(product(), {&kRight, &kCounts}), &kRight);
  EXPECT_EQ(counted_runs, 2);
  counted_runs = 0;
  EXPECT_EQ(profiler.fastest(product(9), {&kSlow, &kCounts}), &kCounts);
  EXPECT_EQ(counted_runs, 10);
}

TEST_F(ProfilerTest, ReplaysOnceWhatCannotWin) {
  AsyncDevice device;
  Profiler profiler(device, cache_, kPlenty);
  counted_runs = 0;
  EXPECT_EQ(profiler.fastest(product(), {&kRight, &kCounts}), &kRight);
  EXPECT_LE(counted_runs, 1 + 2 * 8);  // a run, and replays of eight: to warm up and to measure
}

// The same operation with more and more rows: what is far behind another stays there.
TEST_F(ProfilerTest, LeavesOutWhatWasOutclassedWithFewerRows) {
  Profiler profiler(*device_, cache_, kPlenty);
  Profiler::Times times;
  const std::vector<const ops::Tactic*> both = {&kSlow, &kRight};
  EXPECT_EQ(profiler.fastest(product(2), both, &times), &kRight);
  EXPECT_EQ(times.size(), 2u);
  slow_runs = 0;
  for (const int64_t rows : {4, 8}) {
    EXPECT_EQ(profiler.fastest(product(rows), both, &times), &kRight);
    EXPECT_EQ(slow_runs, 0);
    EXPECT_EQ(cache_.find(product(rows).key(), "slow"), std::nullopt);
  }
  // With 16 rows the other one cannot run, and without a series nothing is known.
  EXPECT_EQ(profiler.fastest(product(16), {&kSlow}, &times), &kSlow);
  EXPECT_GT(slow_runs, 0);
  slow_runs = 0;
  EXPECT_EQ(profiler.fastest(product(32), both), &kRight);
  EXPECT_GT(slow_runs, 0);
}

// A single run of a small launch is mostly the host's time, which says nothing about the launch.
TEST_F(ProfilerTest, IsNotMisledByTheHostsShare) {
  AsyncDevice device;
  device.synchronize_us = 45;
  Profiler profiler(device, cache_, kPlenty);
  EXPECT_EQ(profiler.fastest(product(1, 1), {&kTakes10Us, &kRight}), &kRight);
}

bool* broken_by_tactic = nullptr;
void run_and_break(const ops::Launch&) {
  *broken_by_tactic = true;
}

// A CUDA context does not survive some errors. Whoever reads the message must know which tactic.
TEST_F(ProfilerTest, NamesTheTacticThatBreaksTheDevice) {
  AsyncDevice device;
  Profiler profiler(device, cache_, kPlenty);
  broken_by_tactic = &device.is_broken;
  const ops::Tactic breaks = tactic("breaks", run_and_break);
  try {
    profiler.fastest(product(), {&breaks, &kRight});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("tactic breaks broke the device"), std::string::npos)
        << error.what();
  }
}

// A weight is the same for every number of rows: it is made and copied once.
TEST_F(ProfilerTest, KeepsWeightsForTheNextTrial) {
  AsyncDevice device;
  Profiler profiler(device, cache_, 4096);  // no room for a second copy: one of each tensor
  profiler.fastest(product(8), {&kRight});
  EXPECT_EQ(device.allocated["tactic trial"], 3);  // x, weight, output
  EXPECT_EQ(device.copies_to_device, 2);
  profiler.fastest(product(9), {&kRight, &kSlow});
  EXPECT_EQ(device.allocated["tactic trial"], 5);
  EXPECT_EQ(device.copies_to_device, 3);
  EXPECT_TRUE(profiler.notes().empty());
}

// The outputs are right, so the device has the numbers that float64 was computed from.
TEST_F(ProfilerTest, RepeatsNumbersOnTheDevice) {
  constexpr int64_t kColumns = 70'000;
  const int64_t period = 509 * RepeatedBytes::page_bytes();
  AsyncDevice device;
  Profiler profiler(device, cache_, kPlenty);
  profiler.fastest(product(8, kColumns), {&kRight});
  EXPECT_EQ(profiler.timed(), 1);
  EXPECT_TRUE(profiler.notes().empty());
  ASSERT_GT(kColumns * 32 * 4, 2 * period);
  EXPECT_EQ(device.bytes_from_host, int64_t{8} * 32 * 4 + period);
}

TEST_F(ProfilerTest, TacticsShareAWorkspace) {
  ops::Tactic small = kRight, large = kSlow, middle = kTakes10Us;
  small.workspace = [](const ops::Launch&, const device::Properties&) { return int64_t{100}; };
  middle.workspace = [](const ops::Launch&, const device::Properties&) { return int64_t{1000}; };
  large.workspace = [](const ops::Launch&, const device::Properties&) { return int64_t{5000}; };
  AsyncDevice device;
  Profiler profiler(device, cache_, kPlenty);
  profiler.fastest(product(), {&small, &large, &middle});
  EXPECT_EQ(profiler.timed(), 3);
  EXPECT_EQ(device.allocated["workspace of trials"], 2);
}

// Samples must not all fall into one column, whatever the shape.
TEST_F(ProfilerTest, SamplesAllColumnsAndTheEnd) {
  for (const int64_t columns : {16, 37, 64, 256, 1024}) {
    for (const int64_t rows : {1, 8, 64}) {
      for (const ops::Tactic* wrong : {&kColumn, &kShort}) {
        Profiler profiler(*device_, cache_, kPlenty);
        EXPECT_EQ(profiler.fastest(product(rows, columns), {wrong, &kSlow}), &kSlow)
            << wrong->name << " " << rows << " x " << columns;
      }
    }
  }
}

TEST_F(ProfilerTest, DropsWhatDoesNotFit) {
  ops::Tactic large = kRight;
  large.name = "large";
  large.workspace = gigabytes;
  Profiler profiler(*device_, cache_, kPlenty);
  EXPECT_EQ(profiler.fastest(product(), {&large, &kSlow}), &kSlow);
  ASSERT_EQ(profiler.notes().size(), 1u);
  EXPECT_NE(profiler.notes()[0].find("tactic large dropped"), std::string::npos);
  EXPECT_NE(profiler.notes()[0].find("the limit is"), std::string::npos);
}

// Inputs that are kept and the workspace of a later tactic count, and so do copies.
TEST_F(ProfilerTest, HoldsNoMoreThanTheLimit) {
  constexpr int64_t kMiB = int64_t{1} << 20, kLimit = 6 * kMiB;
  constexpr int64_t kColumns = 4096;  // a weight of 512 KiB, for which the cache takes eight copies
  ops::Tactic hungry = kTakes10Us;
  hungry.workspace = [](const ops::Launch&, const device::Properties&) { return 2 * kMiB; };
  const auto most_held = [&](int64_t rows, const std::vector<const ops::Tactic*>& tactics) {
    AsyncDevice device;
    TimingCache no_times("", device.properties(), "");
    Profiler profiler(device, no_times, kLimit);
    profiler.fastest(product(1, kColumns), {&kRight});
    EXPECT_GT(device.most_held, 4 * kMiB);
    profiler.fastest(product(rows, kColumns), tactics);
    EXPECT_EQ(profiler.timed(), 1 + std::ssize(tactics));
    const int64_t small_kernel = int64_t{3} * 4096 * 2;
    return device.most_held - small_kernel;
  };
  EXPECT_LE(most_held(256, {&kRight}), kLimit);  // outputs of 4 MiB leave no room for eight weights
  EXPECT_LE(most_held(2, {&kRight, &hungry}), kLimit);
}

Problem experts_product(int64_t rows, int64_t choices, int64_t experts) {
  constexpr int64_t kColumns = 16, kDepth = 32;
  ir::Graph graph("g");
  const ir::ValueId x = graph.add_input("x", {ir::DType::kF32, {rows, kDepth}});
  const ir::ValueId ids = graph.add_input("ids", {ir::DType::kI32, {rows, choices}});
  ir::Attrs name;
  name.set("name", std::string("w"));
  const ir::ValueId w =
      graph.add("weight", {}, {ir::DType::kF32, {experts, kColumns, kDepth}}, name);
  const ir::Attrs attrs = ops::to_attrs(ops::MoeMatmul{.experts = static_cast<int>(experts)});
  return make_problem(graph, ops::add_node(graph, ops::MoeMatmul::kName, {x, ids, w}, attrs), {});
}

std::vector<int32_t> seen_ids;
void run_and_see_ids(const ops::Launch& launch) {
  ops::find_op(ops::MoeMatmul::kName)->tactics.back().run(launch);
  const ops::Tensor& ids = launch.in[1];
  seen_ids.assign(ids.as<int32_t>(), ids.as<int32_t>() + ids.count());
}
/// Right where the first expert is the only one.
void run_with_first_expert(const ops::Launch& launch) {
  std::vector<int32_t> zeros(static_cast<size_t>(launch.in[1].count()), 0);
  std::vector<ops::Tensor> in(launch.in.begin(), launch.in.end());
  in[1].data = zeros.data();
  ops::Launch changed = launch;
  changed.in = in;
  ops::find_op(ops::MoeMatmul::kName)->tactics.back().run(changed);
}

// As in use: all experts have rows, and the choices of a row differ. A trial whose ids are as many
// as those of the one before has ids of its own.
TEST_F(ProfilerTest, SpreadsRowsOverExperts) {
  const ops::Tactic sees = tactic("sees", run_and_see_ids),
                    first = tactic("first", run_with_first_expert);
  AsyncDevice async;
  for (device::Device* device : {device_.get(), static_cast<device::Device*>(&async)}) {
    TimingCache no_times("", device->properties(), "");
    Profiler profiler(*device, no_times, kPlenty);
    for (const auto& [rows, choices, experts] :
         {std::array{64, 4, 60}, std::array{64, 4, 8}, std::array{128, 2, 3}}) {
      EXPECT_EQ(profiler.fastest(experts_product(rows, choices, experts), {&first, &sees}), &sees);
      ASSERT_EQ(std::ssize(seen_ids), rows * choices);
      EXPECT_EQ(std::ssize(std::set(seen_ids.begin(), seen_ids.end())), experts);
      EXPECT_GE(std::ranges::min(seen_ids), 0);
      EXPECT_LT(std::ranges::max(seen_ids), experts);
      for (auto row = seen_ids.begin(); row != seen_ids.end(); row += choices)
        EXPECT_EQ(std::ssize(std::set(row, row + choices)), choices);
    }
    EXPECT_EQ(profiler.notes().size(), 3u);  // wrong outputs of `first`
  }
}

// Ids of a table are rows of it, whatever is added to them.
TEST_F(ProfilerTest, NamesRowsOfATable) {
  constexpr int64_t kRows = 256, kTable = 40, kOffset = 2;
  ir::Graph graph("g");
  const ir::ValueId ids = graph.add_input("ids", {ir::DType::kI32, {kRows}});
  ir::Attrs name;
  name.set("name", std::string("w"));
  const ir::ValueId table = graph.add("weight", {}, {ir::DType::kF32, {kTable, 8}}, name);
  const ir::Attrs attrs = ops::to_attrs(ops::Embedding{.offset = kOffset});
  const Problem problem =
      make_problem(graph, ops::add_node(graph, ops::Embedding::kName, {ids, table}, attrs), {});
  const ops::Tactic sees = tactic("sees", [](const ops::Launch& launch) {
    const ops::Tensor& i = launch.in[0];
    seen_ids.assign(i.as<int32_t>(), i.as<int32_t>() + i.count());
    ops::find_op(ops::Embedding::kName)->tactics.back().run(launch);
  });
  Profiler profiler(*device_, cache_, kPlenty);
  EXPECT_EQ(profiler.fastest(problem, {&sees}), &sees);
  ASSERT_EQ(std::ssize(seen_ids), kRows);
  EXPECT_EQ(std::ranges::min(seen_ids), 0);
  EXPECT_EQ(std::ranges::max(seen_ids), kTable - kOffset - 1);
}

// A limit above what the device has: the allocation fails, the build does not.
TEST_F(ProfilerTest, DropsWhatTheDeviceCannotAllocate) {
  ops::Tactic large = kRight;
  large.name = "large";
  large.workspace = [](const ops::Launch&, const device::Properties& p) {
    return 4 * p.memory_bytes;
  };
  Profiler profiler(*device_, cache_, INT64_MAX);
  EXPECT_EQ(profiler.fastest(product(), {&large, &kSlow}), &kSlow);
  ASSERT_EQ(profiler.notes().size(), 1u);
}

TEST_F(ProfilerTest, DropsWhatThrows) {
  Profiler profiler(*device_, cache_, kPlenty);
  EXPECT_EQ(profiler.fastest(product(), {&kFails, &kSlow}), &kSlow);
  ASSERT_EQ(profiler.notes().size(), 1u);
  EXPECT_NE(profiler.notes()[0].find("no such luck"), std::string::npos);
}

TEST_F(ProfilerTest, TakesTheFirstWhenNoneIsLeft) {
  Profiler profiler(*device_, cache_, 16);
  EXPECT_EQ(profiler.fastest(product(), {&kSlow, &kRight}), &kSlow);
  EXPECT_EQ(profiler.timed(), 0);
  EXPECT_EQ(profiler.notes().size(), 2u);
}

TEST_F(ProfilerTest, RemembersTimes) {
  cache_.add(product().key(), "slow", 1);
  cache_.add(product().key(), "right", 2);
  Profiler profiler(*device_, cache_, kPlenty);
  EXPECT_EQ(profiler.fastest(product(), {&kRight, &kSlow}), &kSlow);
  EXPECT_EQ(profiler.from_cache(), 2);
  EXPECT_EQ(profiler.timed(), 0);
  // Another size is another problem.
  EXPECT_EQ(profiler.fastest(product(9), {&kSlow, &kRight}), &kRight);
  EXPECT_EQ(profiler.timed(), 2);
}

void run_each(std::span<const ops::Launch> launches) {
  for (const ops::Launch& launch : launches)
    run_reference(launch);
}
int slow_chains = 0;
void run_each_slowly(std::span<const ops::Launch> launches) {
  ++slow_chains;
  for (const ops::Launch& launch : launches)
    run_slowly(launch);
}
void run_all_but_the_last(std::span<const ops::Launch> launches) {
  run_each(launches.first(launches.size() - 1));
}
void run_all_but_the_first(std::span<const ops::Launch> launches) {
  run_each(launches.subspan(1));
}

ops::Tactic chain_tactic(const char* name, void (*run_chain)(std::span<const ops::Launch>)) {
  ops::Tactic made;
  made.name = name;
  made.run_chain = run_chain;
  return made;
}

// Two products of unequal size, alone by `alone`, or both at once.
Chain two_products(const ops::Tactic& tactic, const ops::Tactic& alone) {
  return {.problems = {product(), product(8, 24)}, .alone = {&alone, &alone}, .tactic = &tactic};
}

std::string two_keys() {
  return product().key() + " > " + product(8, 24).key();
}

TEST_F(ProfilerTest, TakesAChainThatIsFaster) {
  const ops::Tactic quick = chain_tactic("quick", run_each),
                    slow = chain_tactic("slow chain", run_each_slowly);
  AsyncDevice asynchronous;
  for (device::Device* device : {device_.get(), static_cast<device::Device*>(&asynchronous)}) {
    TimingCache cache("", device->properties(), "");
    Profiler profiler(*device, cache, kPlenty);
    EXPECT_TRUE(profiler.is_faster(two_products(quick, kSlow)));
    EXPECT_FALSE(profiler.is_faster(two_products(slow, kRight)));
    EXPECT_EQ(profiler.timed(), 4);
    EXPECT_TRUE(profiler.notes().empty());
    // Layers repeat: nothing is timed again.
    slow_chains = 0;
    EXPECT_TRUE(profiler.is_faster(two_products(quick, kSlow)));
    EXPECT_FALSE(profiler.is_faster(two_products(slow, kRight)));
    EXPECT_EQ(slow_chains, 0);
    EXPECT_EQ(profiler.timed(), 4);
    // Both times are kept, by the tactics that they are of.
    EXPECT_LT(*cache.find(two_keys(), "quick"), *cache.find(two_keys(), "slow > slow"));
    EXPECT_LT(*cache.find(two_keys(), "right > right"), *cache.find(two_keys(), "slow chain"));
  }
}

TEST_F(ProfilerTest, RemembersChains) {
  const ops::Tactic slow = chain_tactic("chain", run_each_slowly);
  cache_.add(two_keys(), "chain", 1);
  cache_.add(two_keys(), "right > right", 2);
  Profiler profiler(*device_, cache_, kPlenty);
  EXPECT_TRUE(profiler.is_faster(two_products(slow, kRight)));
  EXPECT_EQ(profiler.from_cache(), 2);
  EXPECT_EQ(profiler.timed(), 0);
}

TEST_F(ProfilerTest, TakesAChainThatIsAsFast) {
  const ops::Tactic slow = chain_tactic("chain", run_each_slowly);
  for (const double us : {100.5, 103.0}) {
    TimingCache cache("", device_->properties(), "");
    cache.add(two_keys(), "chain", us);
    cache.add(two_keys(), "right > right", 100);
    Profiler profiler(*device_, cache, kPlenty);
    EXPECT_EQ(profiler.is_faster(two_products(slow, kRight)), us < 101) << us;
  }
}

TEST_F(ProfilerTest, DropsAChainOfWhichOneLaunchIsWrong) {
  for (const auto wrong : {run_all_but_the_last, run_all_but_the_first}) {
    const ops::Tactic chain = chain_tactic("wrong", wrong);
    Profiler profiler(*device_, cache_, kPlenty);
    EXPECT_FALSE(profiler.is_faster(two_products(chain, kSlow)));
    EXPECT_EQ(profiler.notes(),
              std::vector<std::string>{
                  str("tactic wrong dropped for ", two_keys(), ": its outputs are wrong")});
    EXPECT_EQ(cache_.find(two_keys(), "wrong"), std::nullopt);
  }
}

// It needs x, weight and output of both products at once.
TEST_F(ProfilerTest, DropsAChainThatDoesNotFit) {
  const ops::Tactic quick = chain_tactic("quick", run_each);
  const int64_t bytes = 4 * (8 * 32 + 16 * 32 + 8 * 16) + 4 * (8 * 32 + 24 * 32 + 8 * 24);
  Profiler enough(*device_, cache_, bytes), less(*device_, cache_, bytes - 1);
  EXPECT_FALSE(less.is_faster(two_products(quick, kSlow)));
  EXPECT_EQ(less.timed(), 0);
  ASSERT_EQ(less.notes().size(), 1u);
  EXPECT_NE(less.notes()[0].find("the limit is"), std::string::npos) << less.notes()[0];
  EXPECT_TRUE(enough.is_faster(two_products(quick, kSlow)));
}

// A weight that two launches read from one place would be in the cache for the second.
TEST_F(ProfilerTest, ProductsOfOneSizeHaveTheirOwnWeights) {
  static std::vector<const void*> weights;
  weights.clear();
  const ops::Tactic watches = chain_tactic("watches", [](std::span<const ops::Launch> launches) {
    for (const ops::Launch& launch : launches)
      weights.push_back(launch.in[1].data);
    run_each(launches);
  });
  Profiler profiler(*device_, cache_, kPlenty);
  profiler.is_faster({{product(), product()}, {&kRight, &kRight}, &watches});
  ASSERT_GE(weights.size(), 2u);
  EXPECT_NE(weights[0], weights[1]);
}

// What a launch hands over to the next one, a chain may do in its own way: it is timed with what
// flows in the graph, and checked with inputs that are known.
TEST_F(ProfilerTest, TimesAChainWithItsFlow) {
  static std::vector<bool> joined;
  const ops::Tactic watches = chain_tactic("watches", [](std::span<const ops::Launch> launches) {
    joined.push_back(launches[1].in[0].data == launches[0].out[0].data);
    run_each(launches);
  });
  const Problem square = product(32, 32);
  AsyncDevice asynchronous;
  for (device::Device* device : {device_.get(), static_cast<device::Device*>(&asynchronous)}) {
    TimingCache cache("", device->properties(), "");
    Profiler profiler(*device, cache, kPlenty);
    joined.clear();
    EXPECT_TRUE(profiler.is_faster({.problems = {square, square},
                                    .alone = {&kSlow, &kSlow},
                                    .tactic = &watches,
                                    .flow = {{.to = 1, .input = 0, .from = 0}}}));
    EXPECT_TRUE(profiler.notes().empty());
    ASSERT_GE(joined.size(), 2u);
    EXPECT_FALSE(joined.front());
    EXPECT_TRUE(joined.back());
  }
}

// The rows with which select_tactics times a product [T, 8] x [8, 8].
std::vector<int64_t> timed_rows(device::Device& device, int64_t max_rows) {
  engine::PlannedGraph planned;
  planned.graph.add_symbol("T", max_rows);
  const ir::ValueId x = planned.graph.add_input("x", {ir::DType::kF32, {"T", 8}});
  ir::Attrs name;
  name.set("name", std::string("w"));
  const ir::ValueId w = planned.graph.add("weight", {}, {ir::DType::kF32, {8, 8}}, name);
  const ir::NodeId node = ops::add_node(planned.graph, ops::Matmul::kName, {x, w}, {});
  planned.regimes = {{"context", {{"T", max_rows}, {"S", 1}, {"L", 1}}, 0, {}, {}}};
  TimingCache cache("", device.properties(), "");
  Profiler profiler(device, cache, kPlenty);
  select_tactics(planned, device, &profiler);
  std::vector<int64_t> timed;
  for (int64_t rows = 1; rows <= max_rows; ++rows) {
    const std::string key = make_problem(planned.graph, node, ir::Bindings({{"T", rows}})).key();
    const auto knows = [&](const ops::Tactic& t) { return cache.find(key, t.name).has_value(); };
    if (std::ranges::any_of(ops::find_op(ops::Matmul::kName)->tactics, knows)) {
      timed.push_back(rows);
    }
  }
  return timed;
}

// A prompt is long on a CPU.
TEST_F(ProfilerTest, RowsOfPromptsAreTimedOnAGpu) {
  AsyncDevice gpu;
  const std::vector<int64_t> few = {1, 2, 4, 8, 16, 32, 64, 128, 256};
  const auto and_then = [&](int64_t rows) {
    std::vector<int64_t> all = few;
    all.push_back(rows);
    return all;
  };
  EXPECT_EQ(timed_rows(*device_, 5000), few);
  EXPECT_EQ(timed_rows(gpu, 5000), and_then(2048));
  EXPECT_EQ(timed_rows(gpu, 2048), and_then(2048));
  EXPECT_EQ(timed_rows(gpu, 300), and_then(300));
  EXPECT_EQ(timed_rows(gpu, 256), few);
}

}  // namespace
}  // namespace millrace::compiler
