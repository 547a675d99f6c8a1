#include "device/transfers.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

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

  const std::unique_ptr<Device> device_ = make_cpu_device(1);
  const std::unique_ptr<Memory> host_ = device_->allocate_host(4 * kCount, "host"),
                                memory_ = device_->allocate(4 * kCount, "device");
  int64_t times_[2] = {};
};

TEST_F(TransfersTest, CopyPartsAndNothingElse) {
  begin_step(*device_, std::vector{part(64, 16, 3), part(0, 512, 1), part(256, 256, 256)},
             &times_[0]);
  for (int i = 0; i < kCount; ++i) {
    int32_t expected = 0;
    if (i >= 64 && i < 67) expected = i - 64 + 16 + 1;
    if (i == 0) expected = 513;
    if (i >= 256 && i < 512) expected = i + 1;
    ASSERT_EQ(numbers(*memory_)[i], expected) << i;
  }
  std::fill_n(numbers(*host_), kCount, -1);
  end_step(*device_, std::vector<TransferPart>{{host_->data() + 64, memory_->data() + 1024, 20}},
           &times_[1]);
  for (int i = 0; i < kCount; ++i)
    ASSERT_EQ(numbers(*host_)[i], i >= 16 && i < 21 ? i - 16 + 257 : -1) << i;
}

TEST_F(TransfersTest, TellTheTime) {
  begin_step(*device_, {}, &times_[0]);
  const auto event = device_->make_event(), later = device_->make_event();
  event->record();
  while (later->record(), later->seconds_since(*event) < 1e-3) {
  }
  end_step(*device_, {}, &times_[1]);
  EXPECT_GE(times_[1] - times_[0], 1'000'000);
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
