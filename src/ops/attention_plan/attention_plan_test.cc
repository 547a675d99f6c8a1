#include "ops/attention_plan/attention_plan.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/attention_plan/attention_plan_tactics.h"
#include "ops/common/generation_division.h"
#include "ops/common/sequence_rows.h"

namespace millrace::ops {
namespace {

using generation::Division;
using generation::Lengths;
using generation::plan_items;
using generation::Walk;
using generation::WorkItem;

struct Step {
  std::vector<int32_t> length, start, tokens, types;

  void add(int32_t past, int32_t rows, RequestType type = RequestType::kGeneration) {
    start.push_back(rows_);
    length.push_back(past + rows);
    tokens.push_back(rows);
    types.push_back(static_cast<int32_t>(type));
    rows_ += rows;
  }
  int64_t rows() const { return rows_; }

 private:
  int32_t rows_ = 0;
};

std::vector<WorkItem> plan(const AttentionPlan& a, Step& step) {
  std::vector<WorkItem> items(static_cast<size_t>(plan_items(a.head_size)));
  const auto vector = [](std::vector<int32_t>& values) {
    return Tensor(values.data(), ir::DType::kI32,
                  std::initializer_list<int64_t>{static_cast<int64_t>(values.size())});
  };
  const std::vector<Tensor> in = {
      Tensor(nullptr, ir::DType::kI32, std::initializer_list<int64_t>{step.rows()}),
      vector(step.length), vector(step.start), vector(step.tokens), vector(step.types)};
  const std::vector<Tensor> out = {
      Tensor(items.data(), ir::DType::kI32,
             std::initializer_list<int64_t>{plan_items(a.head_size), generation::kItemWords})};
  attention_plan_ref({.in = in, .out = out, .attributes = &a});
  return items;
}

/// (sequence, unit, piece)
using PieceName = std::tuple<int, int, int>;

/// How often each piece is done, as the blocks of the kernel walk.
std::map<PieceName, int> walk_all(const AttentionPlan& a, Step& step) {
  const std::vector<WorkItem> items = plan(a, step);
  Lengths lengths{step.length.data(), step.start.data(), step.tokens.data(), 0, 0};
  while (lengths.first < static_cast<int>(step.types.size()) &&
         step.types[static_cast<size_t>(lengths.first)] == 0) {
    ++lengths.first;
  }
  lengths.sequences = static_cast<int>(step.types.size()) - lengths.first;
  const Division division = division_of(generation::DividedHeads::of(a),
                                        choose_kind(step.rows(), lengths, a.heads / a.kv_heads));
  std::map<PieceName, int> done;
  const size_t blocks = std::max(items.size(), static_cast<size_t>(lengths.sequences * a.kv_heads));
  for (size_t block = 0; block < blocks; ++block) {
    if (items[0].unit_blocks == 0 && block >= items.size()) break;
    const WorkItem item =
        items[0].unit_blocks != 0
            ? unit_item(division, lengths, static_cast<unsigned>(block) / unsigned(a.kv_heads),
                        static_cast<unsigned>(block) % unsigned(a.kv_heads))
            : items[block];
    if (item.has_work == 0) continue;
    Walk walk = item.walk();
    while (walk.start() < item.end) {
      ++done[{lengths.first + walk.sequence, walk.unit, walk.piece}];
      if (++walk.piece == walk.plan.pieces) next_unit(division, lengths, item.end, &walk);
    }
  }
  return done;
}

/// Every piece of every unit, by counting keys one by one.
std::map<PieceName, int> all_pieces(const AttentionPlan& a, const Step& step, int unit_rows) {
  std::map<PieceName, int> all;
  for (size_t s = 0; s < step.types.size(); ++s) {
    if (step.types[s] == 0 || step.tokens[s] == 0) continue;
    const int first = step.length[s] - step.tokens[s];
    const int window = a.window > 0 ? std::max(0, first + 1 - a.window) : 0;
    std::map<std::pair<bool, int>, bool> tiles;  // sinks apart
    for (int key = 0; key < std::min(a.sink_tokens, window); ++key)
      tiles[{false, key / 16}] = true;
    for (int key = window; key < step.length[s]; ++key)
      tiles[{true, key / 16}] = true;
    const int rows = step.tokens[s] * (a.heads / a.kv_heads);
    const int units = (rows + unit_rows - 1) / unit_rows * a.kv_heads;
    const int count = static_cast<int>(tiles.size());
    const int of_piece = (count + a.splits - 1) / a.splits;
    for (int unit = 0; unit < units; ++unit) {
      for (int piece = 0; piece * of_piece < count; ++piece)
        all[{static_cast<int>(s), unit, piece}] = 1;
    }
  }
  return all;
}

Step ragged() {
  Step step;
  step.add(0, 7, RequestType::kContext);
  for (const int past : {0, 14, 15, 16, 63, 700, 5000})
    step.add(past, 1);
  step.add(12, 0);
  step.add(130, 9);
  step.add(0, 0);
  return step;
}

TEST(AttentionPlan, EveryPieceIsDoneOnce) {
  for (const int splits : {1, 3, 7, 32}) {
    for (const auto& [window, sinks] : {std::pair{0, 0}, {64, 0}, {300, 20}, {5, 40}}) {
      SCOPED_TRACE(testing::Message() << splits << " pieces, window " << window);
      AttentionPlan a = {.heads = 8, .kv_heads = 2, .head_size = 128};
      a.splits = splits;
      a.window = window;
      a.sink_tokens = sinks;
      Step step = ragged();
      EXPECT_EQ(walk_all(a, step), all_pieces(a, step, 8));
    }
  }
}

// Without given pieces, too, and for every number of sequences: each tile has one owner, so that
// no piece is missing or done twice.
TEST(AttentionPlan, AnyNumberOfSequencesIsShared) {
  const AttentionPlan a = {.heads = 32, .kv_heads = 8, .head_size = 128};
  for (const int count : {1, 2, 7, 8, 31, 32, 33, 64, 128, 200, 1024}) {
    for (const int past : {0, 255, 383, 2000}) {
      SCOPED_TRACE(testing::Message() << count << " sequences, " << past);
      Step step;
      for (int i = 0; i < count; ++i)
        step.add(past + i % 3, 1);
      std::map<PieceName, int> done = walk_all(a, step);
      std::map<std::pair<int, int>, int> pieces_of_unit;
      for (const auto& [piece, times] : done) {
        EXPECT_EQ(times, 1);
        ++pieces_of_unit[{std::get<0>(piece), std::get<1>(piece)}];
      }
      ASSERT_EQ(pieces_of_unit.size(), static_cast<size_t>(count * a.kv_heads));
      const int tiles = (past + 1 + 15) / 16;
      for (const auto& [unit, pieces] : pieces_of_unit) {
        if (unit.first % 3 != 0) continue;
        EXPECT_EQ(pieces, tiles <= 32 ? 1 : (tiles + 15) / 16);
      }
    }
  }
}

/// How many pieces the first unit of a sequence has; units may have more rows in other batches.
size_t count_pieces(const std::map<PieceName, int>& done, int sequence) {
  return static_cast<size_t>(std::count_if(done.begin(), done.end(), [&](const auto& entry) {
    return std::get<0>(entry.first) == sequence && std::get<1>(entry.first) == 0;
  }));
}

// What a piece is follows from its sequence: else results would depend on the batch.
TEST(AttentionPlan, PiecesDoNotDependOnTheBatch) {
  const AttentionPlan a = {.heads = 32, .kv_heads = 8, .head_size = 128, .window = 1000};
  Step batch = ragged();
  const std::map<PieceName, int> of_batch = walk_all(a, batch);
  for (size_t s = 1; s < batch.types.size(); ++s) {
    Step alone;
    alone.add(batch.length[s] - batch.tokens[s], batch.tokens[s]);
    EXPECT_EQ(count_pieces(of_batch, static_cast<int>(s)), count_pieces(walk_all(a, alone), 0));
  }
  EXPECT_EQ(count_pieces(of_batch, 6), 3U);  // 701 keys are 44 tiles
}

/// Whether each block has a unit, in a step of sequences that have so many keys.
bool has_unit_blocks(const AttentionPlan& a, const std::vector<int32_t>& keys, int32_t rows = 1) {
  Step step;
  for (const int32_t count : keys)
    step.add(count - rows, rows);
  const std::vector<WorkItem> items = plan(a, step);
  for (const WorkItem& item : items)
    EXPECT_EQ(item.unit_blocks, items[0].unit_blocks);
  return items[0].unit_blocks != 0;
}

TEST(AttentionPlan, BlocksHaveUnitsUnlessOthersWouldIdle) {
  const AttentionPlan a = {.heads = 32, .kv_heads = 8, .head_size = 128};
  EXPECT_TRUE(has_unit_blocks(a, {384}));  // a piece alone
  EXPECT_FALSE(has_unit_blocks(a, {4096}));
  EXPECT_FALSE(has_unit_blocks(a, std::vector<int32_t>(8, 1024)));
  EXPECT_TRUE(has_unit_blocks(a, std::vector<int32_t>(32, 4096)));
  EXPECT_TRUE(has_unit_blocks(a, std::vector<int32_t>(128, 384)));
  std::vector<int32_t> one_is_long(128, 384);
  one_is_long[50] = 40000;
  EXPECT_FALSE(has_unit_blocks(a, one_is_long));
  // A sequence's rows are two units, which would read the same keys.
  EXPECT_FALSE(has_unit_blocks(a, std::vector<int32_t>(64, 384), 5));
  EXPECT_TRUE(has_unit_blocks(a, std::vector<int32_t>(64, 384), 4));
}

TEST(AttentionPlan, ItemsSayWhetherSequencesHaveOneToken) {
  const AttentionPlan a = {.heads = 32, .kv_heads = 8, .head_size = 128};
  const auto has_one_token = [&](const std::vector<int32_t>& tokens) {
    Step step;
    step.add(3, 7, RequestType::kContext);
    for (const int32_t rows : tokens)
      step.add(200, rows);
    const std::vector<WorkItem> items = plan(a, step);
    for (const WorkItem& item : items)
      EXPECT_EQ(item.one_token, items[0].one_token);
    return items[0].one_token != 0;
  };
  EXPECT_TRUE(has_one_token({1}));
  EXPECT_TRUE(has_one_token({1, 0, 1, 1}));
  EXPECT_FALSE(has_one_token({1, 1, 2, 1}));
}

// All multiprocessors are used, by sharers that read neighbouring heads.
TEST(AttentionPlan, NeighboursShareAMultiprocessor) {
  const AttentionPlan a = {.heads = 32, .kv_heads = 8, .head_size = 128};
  Step step;
  for (int i = 0; i < 8; ++i)
    step.add(8191, 1);
  const std::vector<WorkItem> items = plan(a, step);
  ASSERT_EQ(items.size(), 264U);
  for (size_t i = 0; i < 132; ++i) {
    EXPECT_EQ(items[i].has_work, 1);
    EXPECT_EQ(items[i + 132].has_work, 1);
    EXPECT_EQ(items[i + 132].sharer, items[i].sharer + 1);
  }
}

TEST(AttentionPlan, RefusesWhatItCannotDivide) {
  const Op& op = *find_op("attention_plan");
  const ir::TensorType vector{ir::DType::kI32, {"S"}};
  const std::vector<ir::TensorType> in(5, vector);
  const auto message = [&](const AttentionPlan& a) -> std::string {
    try {
      op.infer(in, to_attrs(a));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message({.heads = 4, .kv_heads = 2, .head_size = 64}), "");
  EXPECT_NE(message({.heads = 4, .kv_heads = 2, .head_size = 72}).find("got 72"),
            std::string::npos);
  EXPECT_NE(message({.heads = 4, .kv_heads = 3, .head_size = 64}).find("evenly"),
            std::string::npos);
}

}  // namespace
}  // namespace millrace::ops
