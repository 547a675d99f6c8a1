#include "ops/common/chain.h"

#include <vector>

#include <gtest/gtest.h>

namespace millrace::ops {
namespace {

void run_nothing(std::span<const Launch>) {}

const Tactic kChain = {.name = "chain", .run_chain = run_nothing},
             kOther = {.name = "other chain", .run_chain = run_nothing}, kAlone = {.name = "alone"};

size_t length(const std::vector<ChainLink>& launches) {
  return chain_length(launches);
}

TEST(ChainLength, JoinsWhatIsRunAlike) {
  EXPECT_EQ(length({{&kChain, 1}}), 1u);
  EXPECT_EQ(length({{&kChain, 1}, {&kChain, 1}}), 2u);
  EXPECT_EQ(length({{&kChain, 1}, {&kChain, 1}, {&kChain, 1}, {&kAlone, 1}, {&kChain, 1}}), 3u);
  EXPECT_EQ(length({{&kChain, 1}, {&kOther, 1}}), 1u);
  EXPECT_EQ(length({{&kChain, 1}, {nullptr, 1}}), 1u);
}

TEST(ChainLength, JoinsNoUnequalRows) {
  EXPECT_EQ(length({{&kChain, 8}, {&kChain, 8}, {&kChain, 4}}), 2u);
}

TEST(ChainLength, JoinsNothingThatHasNoChains) {
  EXPECT_EQ(length({{&kAlone, 1}, {&kAlone, 1}}), 1u);
  EXPECT_EQ(length({{nullptr, 1}, {nullptr, 1}}), 1u);
}

TEST(ChainLength, IsBounded) {
  EXPECT_EQ(length(std::vector<ChainLink>(kMaxChain, {&kChain, 1})), size_t{kMaxChain});
  EXPECT_EQ(length(std::vector<ChainLink>(kMaxChain + 5, {&kChain, 1})), size_t{kMaxChain});
}

}  // namespace
}  // namespace millrace::ops
