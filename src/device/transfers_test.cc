#include "device/transfers.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "device/test_device.h"

namespace millrace::device {
namespace {

// A page of numbers on the host, another on the device.
class TransfersTest : public testing::Test {
 protected:
  TransfersTest() { std::iota(numbers(*host_), numbers(*host_) + kCount, 1); }

  static constexpr int kCount = 1024;
  static int32_t* numbers(const Memory& memory) {
    return reinterpret_cast<int32_t*>(memory.data());
  }
  /// `count` numbers from the host's number `from` on to the device's number `to`.
  TransferPart part(int to, int from, int count) const {
    return {numbers(*memory_) + to, numbers(*host_) + from, int64_t{4} * count};
  }
  std::vector<int32_t> on_device() const {
    std::vector<int32_t> found(kCount);
    device_->copy_to_host(found.data(), memory_->data(), memory_->size());
    return found;
  }

  const std::unique_ptr<Device> device_ = test_device();
  const std::unique_ptr<Memory> host_ = device_->allocate_host(4 * kCount, "host"),
                                memory_ = device_->allocate(4 * kCount, "device"),
                                clock_ = device_->allocate_host(16, "times");
  int64_t* const times_ = reinterpret_cast<int64_t*>(clock_->data());
};

TEST_F(TransfersTest, CopyPartsAndNothingElse) {
  begin_step(*device_, std::vector{part(64, 16, 3), part(0, 512, 1), part(256, 256, 256)},
             &times_[0]);
  const std::vector<int32_t> found = on_device();
  for (int i = 0; i < kCount; ++i) {
    int32_t expected = 0;
    if (i >= 64 && i < 67) expected = i - 64 + 16 + 1;
    if (i == 0) expected = 513;
    if (i >= 256 && i < 512) expected = i + 1;
    // As far as the next multiple of 16 bytes may be copied.
    const int32_t beyond = i == 67 ? 20 : i > 0 && i < 4 ? 513 + i : expected;
    const int32_t got = found[static_cast<size_t>(i)];
    ASSERT_TRUE(got == expected || got == beyond) << i << ": " << got;
  }
  std::fill_n(numbers(*host_), kCount, -1);
  end_step(*device_, std::vector<TransferPart>{{host_->data() + 64, memory_->data() + 1024, 20}},
           &times_[1]);
  device_->synchronize();
  for (int i = 0; i < kCount; ++i) {
    const int32_t expected = i >= 16 && i < 21 ? i - 16 + 257 : -1;
    const int32_t beyond = i > 20 && i < 24 ? i - 16 + 257 : expected;
    const int32_t got = numbers(*host_)[i];
    ASSERT_TRUE(got == expected || got == beyond) << i << ": " << got;
  }
}

TEST_F(TransfersTest, TellTheTime) {
  begin_step(*device_, {}, &times_[0]);
  device_->synchronize();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  end_step(*device_, {}, &times_[1]);
  device_->synchronize();
  EXPECT_GE(times_[1] - times_[0], 1'900'000);  // clocks of GPUs may have steps of a microsecond
  EXPECT_LT(times_[1] - times_[0], 60'000'000'000);
}

TEST_F(TransfersTest, WhatKernelsCannotCopyEndsTheProcess) {
  EXPECT_DEATH(begin_step(*device_, std::vector{part(2, 0, 4)}, &times_[0]), "multiples of 16");
  EXPECT_DEATH(end_step(*device_, std::vector{part(0, 1, 4)}, &times_[0]), "multiples of 16");
  const std::vector<TransferPart> many(kMaxTransferParts + 1, part(0, 0, 4));
  EXPECT_DEATH(begin_step(*device_, many, &times_[0]), "25 parts");
}

}  // namespace
}  // namespace millrace::device
