// A GPU as device.h promises it. Programs built without CUDA do not have these tests, and `./dev
// test` runs those; without a GPU they fail.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "device/device.h"
#include "device/transfers.h"

namespace millrace::device {
namespace {

constexpr int kCount = 100'000;
constexpr int64_t kBytes = 4 * int64_t{kCount};

class CudaDeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(cuda_unusable(), "") << "leave them out: --gtest_filter=-CudaDeviceTest.*";
    device_ = make_cuda_device();
    memory_ = device_->allocate(kBytes, "test");
    copy_ = device_->allocate(kBytes, "test");
    pinned_ = device_->allocate_host(kBytes, "test");
  }
  int32_t* pinned() const { return reinterpret_cast<int32_t*>(pinned_->data()); }
  static std::vector<int32_t> counted_from(int first) {
    std::vector<int32_t> numbers(kCount);
    std::iota(numbers.begin(), numbers.end(), first);
    return numbers;
  }
  void write(const std::vector<int32_t>& numbers) {
    device_->copy_to_device(memory_->data(), numbers.data(), kBytes);
    device_->synchronize();
  }
  std::vector<int32_t> read(const Memory& memory) {
    std::vector<int32_t> numbers(kCount, -1);
    device_->copy_to_host(numbers.data(), memory.data(), kBytes);
    return numbers;
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Memory> memory_, copy_, pinned_;
};

TEST_F(CudaDeviceTest, MemoryIsZeroedAndCopiedEachWay) {
  EXPECT_EQ(device_->properties().kind, Kind::kCuda);
  EXPECT_TRUE(device_->is_asynchronous());
  const std::vector<int32_t> zeros(kCount, 0), numbers = counted_from(7);
  EXPECT_EQ(read(*memory_), zeros);
  EXPECT_TRUE(std::equal(zeros.begin(), zeros.end(), pinned()));
  write(numbers);
  EXPECT_EQ(read(*memory_), numbers);
  device_->copy_to_device(copy_->data(), memory_->data(), kBytes);
  EXPECT_EQ(read(*copy_), numbers);
  const auto copied = device_->make_event();
  device_->enqueue_copy_to_host(pinned(), copy_->data(), kBytes);
  copied->record();
  copied->wait();
  EXPECT_TRUE(std::equal(numbers.begin(), numbers.end(), pinned()));
}

TEST_F(CudaDeviceTest, WhatDoesNotFitIsRefusedWithTheNumbers) {
  const int64_t before = device_->free_bytes();
  EXPECT_GT(before, 0);
  EXPECT_LE(before, device_->properties().memory_bytes);
  try {
    device_->allocate(device_->properties().memory_bytes + 1, "a pool");
    FAIL() << "more than there is";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("a pool"), std::string::npos) << what;
    EXPECT_NE(what.find("are free"), std::string::npos) << what;
  }
  write(counted_from(1));  // the error does not stick
}

// At ten times the bandwidth of any memory there is.
TEST_F(CudaDeviceTest, EventsTellTheTimeOfTheDevice) {
  constexpr int64_t kLarge = int64_t{256} << 20;
  const auto from = device_->allocate(kLarge, "test"), to = device_->allocate(kLarge, "test");
  const auto begin = device_->make_event(), end = device_->make_event();
  begin->record();
  device_->copy_to_device(to->data(), from->data(), kLarge);
  end->record();
  end->wait();
  EXPECT_GT(end->seconds_since(*begin), 2 * kLarge / 80e12);
  EXPECT_LT(end->seconds_since(*begin), 5);
}

TEST_F(CudaDeviceTest, CapturedWorkRunsWhenItIsReplayed) {
  write(counted_from(1));
  const auto graph =
      device_->capture([&] { device_->copy_to_device(copy_->data(), memory_->data(), kBytes); });
  EXPECT_EQ(read(*copy_), std::vector<int32_t>(kCount, 0));
  for (const int first : {1, 500}) {
    write(counted_from(first));
    graph->replay();
    EXPECT_EQ(read(*copy_), counted_from(first));
  }
}

TEST_F(CudaDeviceTest, CaptureThatThrowsLeavesTheDeviceUsable) {
  EXPECT_THROW(device_->capture([] { throw_failed("no", "the test", ""); }), Error);
  write(counted_from(3));
  EXPECT_EQ(read(*memory_), counted_from(3));
}

TEST_F(CudaDeviceTest, AHoldKeepsBackWhatFollows) {
  write(counted_from(1));
  const auto copied = device_->make_event();
  const auto hold = device_->hold();
  device_->enqueue_copy_to_host(pinned(), memory_->data(), kBytes);
  copied->record();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(pinned()[0], 0);
  hold->release();
  copied->wait();
  EXPECT_EQ(pinned()[kCount - 1], kCount);
}

// Nobody releases this one: the host waits for what it keeps back.
TEST_F(CudaDeviceTest, AHoldEndsByItself) {
  write(counted_from(1));
  const auto start = std::chrono::steady_clock::now();
  const auto hold = device_->hold();
  device_->enqueue_copy_to_host(pinned(), memory_->data(), kBytes);
  device_->synchronize();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_GT(took.count(), 0.5);
  EXPECT_LT(took.count(), 30);
  EXPECT_EQ(pinned()[kCount - 1], kCount);
}

/// Exits with what is told of a kernel that writes to address 0.
[[noreturn]] void fail_and_tell() {
  try {
    const auto device = make_cuda_device();
    end_step(*device, {}, nullptr);
    device->synchronize();
  } catch (const Error& error) {
    std::fputs(error.what(), stderr);
    std::_Exit(1);
  }
  std::_Exit(0);
}

// Nothing asks for a GPU before: CUDA reads the environment then.
TEST(CudaDeviceDeathTest, AFailedKernelIsNamedWhereLaunchesBlock) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";  // CUDA does not work in forks
  EXPECT_EXIT(fail_and_tell(), testing::ExitedWithCode(1),
              "a kernel before this point failed: .*run it again with CUDA_LAUNCH_BLOCKING=1");
  EXPECT_EXIT((setenv("CUDA_LAUNCH_BLOCKING", "1", 1), fail_and_tell()), testing::ExitedWithCode(1),
              "download_kernel failed: .*end_step, grid 1x1x1, block 512x1x1");
}

}  // namespace
}  // namespace millrace::device
