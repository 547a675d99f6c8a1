#include "base/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <system_error>
#include <utility>

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "base/check.h"
#include "base/cpu_limits.h"
#include "base/str.h"

namespace millrace {
namespace {

constexpr int kActiveBits = 16;
constexpr int kMaxThreads = 4096;
constexpr int kDefaultSpinUs = 50;

/// Which part of which region the present thread runs; count 0: none.
struct RegionState {
  int index = 0;
  int count = 0;
};
thread_local RegionState region;

/// Marks the present thread as inside a region for a scope.
class RegionScope {
 public:
  RegionScope(int index, int count) : outer_(region) { region = {index, count}; }
  ~RegionScope() { region = outer_; }
  RegionScope(const RegionScope&) = delete;
  RegionScope& operator=(const RegionScope&) = delete;

 private:
  RegionState outer_;
};

void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // longer than `yield`, which most cores take for a no-op
#endif
}

/// Polls `ready` for about `spin_us`; false when it stayed false.
template <typename Ready>
bool spin_until(int spin_us, const Ready& ready) {
  if (ready()) return true;
  if (spin_us <= 0) return false;
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us);
  do {
    for (int i = 0; i < 16; ++i) {
      cpu_relax();
      if (ready()) return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

/// Signals are for the threads that the program made by itself; faults stay with the thread that
/// makes them.
void block_signals(sigset_t* before) {
  sigset_t all;
  sigfillset(&all);
  for (const int fault : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) {
    sigdelset(&all, fault);
  }
  pthread_sigmask(SIG_SETMASK, &all, before);
}

void bind_to_cpu(pthread_t thread, int cpu) {
  cpu_set_t* set = CPU_ALLOC(cpu + 1);
  if (set == nullptr) return;
  const size_t bytes = CPU_ALLOC_SIZE(cpu + 1);
  CPU_ZERO_S(bytes, set);
  CPU_SET_S(cpu, bytes, set);
  pthread_setaffinity_np(thread, bytes, set);  // a wish: the pool works without it
  CPU_FREE(set);
}

int checked_thread_count(int wanted) {
  CHECK(wanted >= 0);
  return std::min(wanted == 0 ? default_thread_count() : wanted, kMaxThreads);
}

}  // namespace

ThreadPool::ArrivalTree::ArrivalTree(int max_count)
    : groups_(static_cast<size_t>((max_count + kGroupSize - 1) / kGroupSize)) {}

bool ThreadPool::ArrivalTree::arrive(int index, int count) {
  const int group = index / kGroupSize;
  const int group_count = (count + kGroupSize - 1) / kGroupSize;
  const int size = std::min(kGroupSize, count - group * kGroupSize);
  std::atomic<int>& arrived = groups_[static_cast<size_t>(group)].value;
  if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 != size) return false;
  arrived.store(0, std::memory_order_relaxed);
  if (root_.value.fetch_add(1, std::memory_order_acq_rel) + 1 != group_count) return false;
  root_.value.store(0, std::memory_order_relaxed);
  return true;
}

void ThreadPool::ArrivalTree::reset() {
  for (Counter& group : groups_)
    group.value.store(0, std::memory_order_relaxed);
  root_.value.store(0, std::memory_order_relaxed);
}

ThreadPool::ThreadPool(const ThreadPoolOptions& options)
    : thread_count_(checked_thread_count(options.thread_count)),
      spin_us_(options.spin_us),
      finished_(thread_count_),
      at_barrier_(thread_count_) {
  const std::vector<int> cpus = allowed_cpus();
  // Spinning takes the CPU from the very thread that is waited for when there are not enough of
  // them.
  if (spin_us_ < 0) spin_us_ = thread_count_ <= static_cast<int>(cpus.size()) ? kDefaultSpinUs : 0;
  sigset_t before;
  block_signals(&before);  // inherited by the workers
  try {
    for (int index = 1; index < thread_count_; ++index) {
      workers_.emplace_back([this, index] { work(index); });
      const pthread_t handle = workers_.back().native_handle();
      pthread_setname_np(handle, str("worker-", index).c_str());
      if (options.bind) bind_to_cpu(handle, cpus[static_cast<size_t>(index) % cpus.size()]);
    }
  } catch (const std::system_error&) {
    // A limit on threads: go on with those that started.
    thread_count_ = static_cast<int>(workers_.size()) + 1;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ThreadPool::~ThreadPool() {
  const uint64_t epoch = (ticket_.load(std::memory_order_relaxed) >> kActiveBits) + 1;
  ticket_.store(epoch << kActiveBits, std::memory_order_seq_cst);
  wake_word_.fetch_add(1, std::memory_order_seq_cst);
  wake_word_.notify_all();
  for (std::thread& worker : workers_)
    worker.join();
}

void ThreadPool::parallel_for(int64_t task_count, TaskFunction function, Schedule schedule) {
  if (task_count <= 0) return;
  const int active = static_cast<int>(std::min<int64_t>(task_count, thread_count_));
  if (schedule == Schedule::kStatic) {
    dispatch(active, [&](int index, int count) {
      const int64_t end = task_count * (index + 1) / count;
      for (int64_t task = task_count * index / count; task < end; ++task)
        function(task);
    });
    return;
  }
  alignas(kCacheLine) std::atomic<int64_t> next{0};
  dispatch(active, [&](int, int) {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < task_count;) {
      function(task);
    }
  });
}

void ThreadPool::parallel_ranges(int64_t item_count, int64_t grain, RangeFunction function) {
  CHECK(grain > 0);
  if (item_count <= 0) return;
  const int64_t grains = (item_count + grain - 1) / grain;
  dispatch(static_cast<int>(std::min<int64_t>(grains, thread_count_)), [&](int index, int count) {
    const int64_t begin = grains * index / count * grain;
    const int64_t end = std::min(item_count, grains * (index + 1) / count * grain);
    function(begin, end);
  });
}

void ThreadPool::run(RegionFunction function) {
  dispatch(thread_count_, function);
}

void ThreadPool::dispatch(int active, RegionFunction function) {
  if (region.count > 0 || active == 1) {
    const RegionScope scope(0, 1);
    function(0, 1);
    return;
  }
  const std::lock_guard lock(dispatch_mutex_);
  job_ = &function;
  if (failed_.load(std::memory_order_relaxed)) {
    failed_.store(false, std::memory_order_relaxed);
    at_barrier_.reset();
  }
  const uint64_t epoch = (ticket_.load(std::memory_order_relaxed) >> kActiveBits) + 1;
  const auto epoch32 = static_cast<uint32_t>(epoch);
  // Sequentially consistent with the sleepers' count: either the worker sees the ticket before it
  // sleeps, or it is counted here and woken.
  ticket_.store(epoch << kActiveBits | static_cast<uint64_t>(active), std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) {
    wake_word_.fetch_add(1, std::memory_order_seq_cst);
    wake_word_.notify_all();
  }
  take_part(0, active, function);
  if (!finished_.arrive(0, active)) {
    for (uint32_t done; (done = done_epoch_.load(std::memory_order_acquire)) != epoch32;) {
      wait_while_equal(done_epoch_, done);
    }
  }
  if (error_ != nullptr) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::take_part(int index, int active, const RegionFunction& function) noexcept {
  const RegionScope scope(index, active);
  try {
    function(index, active);
  } catch (const RegionAborted&) {  // the thread that failed has left its exception
  } catch (...) {
    if (!failed_.exchange(true, std::memory_order_acq_rel)) error_ = std::current_exception();
    barrier_phase_.fetch_add(1, std::memory_order_acq_rel);
    barrier_phase_.notify_all();
  }
}

void ThreadPool::barrier() {
  CHECK(region.count > 0, "a barrier belongs inside run()");
  if (region.count == 1) return;
  // The phase is read before the flag: a failure after both reads changes the phase waited on.
  const uint32_t phase = barrier_phase_.load(std::memory_order_acquire);
  if (failed_.load(std::memory_order_acquire)) throw RegionAborted();
  if (at_barrier_.arrive(region.index, region.count)) {
    barrier_phase_.fetch_add(1, std::memory_order_acq_rel);
    barrier_phase_.notify_all();
    return;
  }
  wait_while_equal(barrier_phase_, phase);
  if (failed_.load(std::memory_order_acquire)) throw RegionAborted();
}

void ThreadPool::work(int index) noexcept {
  uint64_t seen = 0;
  while (true) {
    seen = next_ticket(seen);
    const int active = static_cast<int>(seen & ((1U << kActiveBits) - 1));
    if (active == 0) return;
    if (index >= active) continue;
    take_part(index, active, *job_);
    if (finished_.arrive(index, active)) {
      done_epoch_.store(static_cast<uint32_t>(seen >> kActiveBits), std::memory_order_release);
      done_epoch_.notify_one();
    }
  }
}

uint64_t ThreadPool::next_ticket(uint64_t seen) {
  const auto changed = [&] { return ticket_.load(std::memory_order_acquire) != seen; };
  if (!spin_until(spin_us_, changed)) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while (true) {
      const uint32_t word = wake_word_.load(std::memory_order_seq_cst);
      if (ticket_.load(std::memory_order_seq_cst) != seen) break;
      wake_word_.wait(word, std::memory_order_acquire);
    }
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }
  return ticket_.load(std::memory_order_acquire);
}

void ThreadPool::wait_while_equal(std::atomic<uint32_t>& word, uint32_t value) const {
  const auto changed = [&] { return word.load(std::memory_order_acquire) != value; };
  if (spin_until(spin_us_, changed)) return;
  word.wait(value, std::memory_order_acquire);
}

}  // namespace millrace
