#include "base/thread_pool.h"

#include <numeric>
#include <set>
#include <stdexcept>

#include <gtest/gtest.h>

#include "base/cpu_limits.h"

namespace millrace {
namespace {

/// How often each task ran.
std::vector<std::atomic<int>> counters(int64_t count) {
  return std::vector<std::atomic<int>>(static_cast<size_t>(count));
}

class ThreadPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryTaskOnce) {
  ThreadPool pool(GetParam());
  for (const Schedule schedule : {Schedule::kStatic, Schedule::kDynamic}) {
    for (const int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
      auto runs = counters(tasks);
      pool.parallel_for(tasks, [&](int64_t task) { ++runs[static_cast<size_t>(task)]; }, schedule);
      for (const auto& n : runs)
        ASSERT_EQ(n, 1);
    }
  }
}

TEST_P(ThreadPoolTest, RangesCoverEverythingInMultiplesOfTheGrain) {
  ThreadPool pool(GetParam());
  for (const int64_t grain : {1, 16}) {
    for (const int64_t items : {0, 1, 15, 16, 17, 1000, 1024}) {
      auto runs = counters(items);
      std::atomic<int> ranges = 0;
      pool.parallel_ranges(items, grain, [&](int64_t begin, int64_t end) {
        ++ranges;
        EXPECT_LT(begin, end);
        EXPECT_EQ(begin % grain, 0);
        EXPECT_TRUE(end % grain == 0 || end == items);
        for (int64_t i = begin; i < end; ++i)
          ++runs[static_cast<size_t>(i)];
      });
      for (const auto& n : runs)
        ASSERT_EQ(n, 1);
      EXPECT_LE(ranges, GetParam());
    }
  }
}

TEST_P(ThreadPoolTest, RegionHoldsEveryThreadAtOnce) {
  ThreadPool pool(GetParam());
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::set<int> indices;
  pool.run([&](int index, int count) {
    EXPECT_EQ(count, GetParam());
    {
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
      indices.insert(index);
    }
    pool.barrier();  // nobody leaves before all are in: as many threads as indices
  });
  EXPECT_EQ(static_cast<int>(threads.size()), GetParam());
  EXPECT_EQ(static_cast<int>(indices.size()), GetParam());
  EXPECT_EQ(*indices.rbegin(), GetParam() - 1);
}

// Plain integers, published only by the barrier: the thread sanitizer would see a barrier that does
// not order them.
TEST_P(ThreadPoolTest, BarrierSeparatesPhases) {
  ThreadPool pool(GetParam());
  constexpr int kPhases = 200;
  std::vector<int> last(static_cast<size_t>(GetParam()), 0);
  pool.run([&](int index, int count) {
    for (int phase = 1; phase <= kPhases; ++phase) {
      last[static_cast<size_t>(index)] = phase;
      pool.barrier();
      for (int other = 0; other < count; ++other) {
        ASSERT_EQ(last[static_cast<size_t>(other)], phase);
      }
      pool.barrier();
    }
  });
}

// Results of one call are read by other threads in the next, without any other synchronisation.
TEST_P(ThreadPoolTest, CallsFollowEachOther) {
  ThreadPool pool(GetParam());
  constexpr int64_t kItems = 64;
  std::vector<int64_t> values(kItems, 0);
  for (int round = 0; round < 2000; ++round) {
    pool.parallel_for(1 + round % kItems, [&](int64_t task) {
      ++values[static_cast<size_t>((task + round) % kItems)];
    });
  }
  int64_t expected = 0;
  for (int round = 0; round < 2000; ++round)
    expected += 1 + round % kItems;
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), expected);
}

TEST_P(ThreadPoolTest, AnExceptionReachesTheCallerAndThePoolGoesOn) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 50; ++round) {
    const int64_t bad = round % 10;
    try {
      pool.parallel_for(10, [&](int64_t task) {
        if (task == bad) throw std::runtime_error(std::to_string(task));
      });
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& e) {
      EXPECT_EQ(e.what(), std::to_string(bad));
    }
    std::atomic<int> runs = 0;
    pool.parallel_for(10, [&](int64_t) { ++runs; });
    EXPECT_EQ(runs, 10);
  }
}

TEST_P(ThreadPoolTest, AnExceptionFreesThoseAtTheBarrier) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(pool.run([&](int index, int count) {
      pool.barrier();
      if (index == round % count) throw std::out_of_range("planted");
      pool.barrier();
      pool.barrier();
    }),
                 std::out_of_range);
    std::atomic<int> met = 0;
    pool.run([&](int, int count) {
      ++met;
      pool.barrier();
      EXPECT_EQ(met, count);
    });
  }
}

TEST_P(ThreadPoolTest, NestedCallsRunInline) {
  ThreadPool pool(GetParam());
  ThreadPool other(2);
  std::atomic<int> runs = 0;
  pool.parallel_for(8, [&](int64_t) {
    const auto self = std::this_thread::get_id();
    pool.parallel_for(4, [&](int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), self);
      ++runs;
    });
    other.run([&](int index, int count) {
      EXPECT_EQ(index, 0);
      EXPECT_EQ(count, 1);
      other.barrier();
      ++runs;
    });
  });
  EXPECT_EQ(runs, 8 * 5);
}

TEST_P(ThreadPoolTest, SeveralCallersTakeTurns) {
  ThreadPool pool(GetParam());
  std::atomic<int64_t> sum = 0;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        pool.parallel_for(16, [&](int64_t task) { sum += task; });
      }
    });
  }
  for (std::thread& caller : callers)
    caller.join();
  EXPECT_EQ(sum, 4 * 100 * 120);
}

// Pauses longer than the spinning let the workers fall asleep between calls.
TEST_P(ThreadPoolTest, WakesSleepers) {
  for (const int spin_us : {0, 5}) {
    ThreadPool pool(ThreadPoolOptions{.thread_count = GetParam(), .spin_us = spin_us});
    for (int round = 0; round < 100; ++round) {
      std::atomic<int> runs = 0;
      pool.run([&](int, int) { ++runs; });
      ASSERT_EQ(runs, GetParam());
      if (round % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

TEST_P(ThreadPoolTest, StartsAndStops) {
  for (int round = 0; round < 20; ++round) {
    ThreadPool pool(ThreadPoolOptions{.thread_count = GetParam(), .bind = round % 2 == 1});
    if (round % 3 == 0) continue;  // destroyed unused
    pool.run([](int, int) {});
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 3, 17));

TEST(ThreadPoolDefaults, TakesWhatTheMachineGives) {
  ThreadPool pool;
  EXPECT_EQ(pool.thread_count(), default_thread_count());
  EXPECT_GE(pool.thread_count(), 1);
  EXPECT_LE(pool.thread_count(), static_cast<int>(allowed_cpus().size()));
}

// Static shares are the same every time, so that a thread finds its data in its own caches.
TEST(ThreadPoolSchedule, StaticSharesAreContiguousAndRepeat) {
  ThreadPool pool(3);
  std::vector<std::thread::id> first(10), second(10);
  for (auto* owners : {&first, &second}) {
    pool.parallel_for(
        10,
        [owners](int64_t task) {
          (*owners)[static_cast<size_t>(task)] = std::this_thread::get_id();
        },
        Schedule::kStatic);
  }
  EXPECT_EQ(first, second);
  EXPECT_EQ(first[0], first[2]);
  EXPECT_NE(first[2], first[3]);
  EXPECT_EQ(first[3], first[5]);
  EXPECT_EQ(first[6], first[9]);
}

}  // namespace
}  // namespace millrace
