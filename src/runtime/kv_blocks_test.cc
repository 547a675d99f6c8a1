#include "runtime/kv_blocks.h"

#include <map>
#include <random>
#include <set>

#include <gtest/gtest.h>

namespace millrace {
namespace {

std::vector<const BlockList*> pointers(const std::vector<BlockList>& lists) {
  std::vector<const BlockList*> result;
  for (const BlockList& list : lists)
    result.push_back(&list);
  return result;
}

TEST(KvBlocks, RoundsTokensUpToBlocks) {
  const KvBlocks pool(1, 16);
  EXPECT_EQ(pool.blocks_for(0), 0);
  EXPECT_EQ(pool.blocks_for(1), 1);
  EXPECT_EQ(pool.blocks_for(16), 1);
  EXPECT_EQ(pool.blocks_for(17), 2);
  EXPECT_EQ(pool.blocks_for(int64_t{1} << 40), int64_t{1} << 36);
}

TEST(KvBlocks, GivesEachBlockOnce) {
  KvBlocks pool(5, 4);
  std::set<int32_t> blocks;
  for (int i = 0; i < 5; ++i)
    blocks.insert(pool.allocate().value());
  EXPECT_EQ(blocks, (std::set<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_FALSE(pool.allocate().has_value());
}

TEST(KvBlocks, GrowsOnlyWhenTheWholeGrowthFits) {
  KvBlocks pool(3, 4);
  BlockList a, b;
  EXPECT_TRUE(pool.grow(a, 5));
  EXPECT_EQ(a.size(), 2U);
  EXPECT_TRUE(pool.grow(a, 8));
  EXPECT_EQ(a.size(), 2U);
  EXPECT_FALSE(pool.grow(b, 5));
  EXPECT_TRUE(b.empty());
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(pool.grow(b, 4));
  pool.check_integrity(std::vector<const BlockList*>{&a, &b});
}

TEST(KvBlocks, TruncatesToWholeBlocks) {
  KvBlocks pool(4, 4);
  BlockList list;
  ASSERT_TRUE(pool.grow(list, 16));
  const BlockList before = list;
  pool.truncate(list, 5);
  EXPECT_EQ(list, BlockList(before.begin(), before.begin() + 2));
  EXPECT_EQ(pool.num_free(), 2);
  pool.truncate(list, 16);
  EXPECT_EQ(list.size(), 2U);
  pool.truncate(list, 0);
  EXPECT_TRUE(list.empty());
  pool.check_integrity({});
}

TEST(KvBlocks, KeepsSinksAndWhatAWindowSees) {
  KvBlocks pool(8, 4);
  BlockList list;
  ASSERT_TRUE(pool.grow(list, 32));
  const BlockList before = list;
  // Position 15 is the last one of block 3: the block stays while it is visible.
  pool.release_before(list, 15, 5);
  EXPECT_EQ(list, (BlockList{before[0], before[1], kNoBlock, before[3], before[4], before[5],
                             before[6], before[7]}));
  pool.release_before(list, 16, 5);
  EXPECT_EQ(list[3], kNoBlock);
  EXPECT_EQ(list[4], before[4]);
  EXPECT_EQ(pool.num_free(), 2);
  pool.check_integrity(std::vector<const BlockList*>{&list});
  pool.release_before(list, 1000, 0);
  EXPECT_EQ(list, BlockList(8, kNoBlock));
  EXPECT_EQ(pool.num_free(), 8);
  pool.truncate(list, 0);
  EXPECT_EQ(pool.num_free(), 8);
}

TEST(KvBlocks, CopiesASharedLastBlockBeforeItIsWritten) {
  KvBlocks pool(6, 4);
  BlockList parent;
  ASSERT_TRUE(pool.grow(parent, 10));
  BlockList child = pool.share_prefix(parent, 10);
  EXPECT_EQ(child, parent);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_EQ(pool.references(parent[2]), 2);
  const auto copy = pool.make_last_own(child, 10);
  ASSERT_TRUE(copy.has_value());
  EXPECT_EQ(copy->from, parent[2]);
  EXPECT_EQ(copy->to, child[2]);
  EXPECT_NE(child[2], parent[2]);
  EXPECT_EQ(child[1], parent[1]);
  EXPECT_FALSE(pool.make_last_own(child, 10).has_value());
  EXPECT_FALSE(pool.make_last_own(parent, 10).has_value());
  pool.check_integrity(std::vector<const BlockList*>{&parent, &child});
  pool.truncate(parent, 0);
  EXPECT_EQ(pool.references(child[0]), 1);
  pool.truncate(child, 0);
  EXPECT_EQ(pool.num_free(), 6);
}

// Each planted fault must be seen.
TEST(KvBlocksDeathTest, IntegrityCheckSeesFaults) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  KvBlocks pool(4, 4);
  BlockList list;
  ASSERT_TRUE(pool.grow(list, 8));
  EXPECT_DEATH(pool.check_integrity({}), "is held 0 times and counted 1");
  const BlockList lost{list[0]}, twice{list[0], list[1], list[1]};
  const BlockList stranger{list[0], list[1], 3};
  EXPECT_DEATH(pool.check_integrity(std::vector<const BlockList*>{&lost}), "is held 0 times");
  EXPECT_DEATH(pool.check_integrity(std::vector<const BlockList*>{&twice}), "is held 2 times");
  EXPECT_DEATH(pool.check_integrity(std::vector<const BlockList*>{&stranger}), "is held 1 times");
  EXPECT_DEATH(pool.release(3), "released a free block 3");
  EXPECT_DEATH(pool.share(3), "shared a free block 3");
  EXPECT_DEATH(pool.share_prefix(list, 9), "shared more than there is");
}

// Random operations against a model that only counts: which list has how many blocks from where.
TEST(KvBlocks, RandomOperationsAgreeWithACountingModel) {
  std::mt19937 random(7);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  KvBlocks pool(40, 4);
  std::vector<BlockList> lists(6);
  std::vector<int64_t> tokens(6, 0);
  for (int step = 0; step < 5000; ++step) {
    const auto i = static_cast<size_t>(below(6)), j = static_cast<size_t>(below(6));
    switch (below(5)) {
      case 0: {
        const int64_t more = tokens[i] + below(20);
        const int64_t need = (more + 3) / 4 - static_cast<int64_t>(lists[i].size());
        const bool fits = need <= pool.num_free();
        ASSERT_EQ(pool.grow(lists[i], more), fits);
        if (fits) tokens[i] = std::max(tokens[i], more);
        break;
      }
      case 1: {
        tokens[i] = below(static_cast<int>(tokens[i]) + 1);
        pool.truncate(lists[i], tokens[i]);
        break;
      }
      case 2:
        pool.release_before(lists[i], below(static_cast<int>(tokens[i]) + 1), below(9));
        break;
      case 3:
        if (i == j) break;
        pool.truncate(lists[j], 0);
        tokens[j] = below(static_cast<int>(tokens[i]) + 1);
        lists[j] = pool.share_prefix(lists[i], tokens[j]);
        break;
      default:
        if (tokens[i] == 0 || lists[i].back() == kNoBlock || pool.num_free() == 0) break;
        pool.make_last_own(lists[i], tokens[i]);
        ASSERT_EQ(pool.references(lists[i].back()), 1);
    }
    ASSERT_EQ(static_cast<int64_t>(lists[i].size()), (tokens[i] + 3) / 4);
    std::map<int32_t, int> held;
    for (const BlockList& list : lists) {
      for (const int32_t block : list) {
        if (block != kNoBlock) ++held[block];
      }
    }
    ASSERT_EQ(pool.num_free(), 40 - static_cast<int64_t>(held.size()));
    for (const auto& [block, count] : held)
      ASSERT_EQ(pool.references(block), count);
    pool.check_integrity(pointers(lists));
  }
}

}  // namespace
}  // namespace millrace
