#include "runtime/batch_upload.h"

#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "device/transfers.h"
#include "ops/common/sequence_inputs.h"

namespace millrace::runtime {
namespace {

constexpr StepLimits kLimits = {.max_sequences = 4,
                                .max_num_tokens = 12,
                                .max_logit_rows = 4,
                                .max_blocks = 3,
                                .num_groups = 2};
constexpr int kHistory = 32;      // N
constexpr int32_t kStale = 1234;  // what an earlier step left

using Ids = std::vector<int32_t>;

// A chunk in the middle of a prompt of 9, a whole prompt of 2 that is only scored, and a sequence
// of 10 tokens whose last one the host does not know.
class BatchUploadTest : public ::testing::Test {
 protected:
  BatchUploadTest() : slots_(4) {
    SamplingParams biased;
    biased.logit_bias = {{7, 1.5F}};
    slots_[2] = {ops::pack_sampling(biased, {.prompt_length = 9, .max_new_tokens = 5}), 40};
    slots_[0] = {ops::pack_sampling({}, {.prompt_length = 2, .max_new_tokens = 5}), 42};
    slots_[3] = {ops::pack_sampling({}, {.prompt_length = 8, .max_new_tokens = 5}), 42};
    batch_.logprobs = 3;
    batch_.sequences = {{.slot = 2,
                         .is_context = true,
                         .past_length = 4,
                         .tokens = chunk_,
                         .blocks = blocks_[0],
                         .sample = true,
                         .targets = {}},
                        {.slot = 0,
                         .is_context = true,
                         .past_length = 0,
                         .tokens = prompt_,
                         .blocks = blocks_[1],
                         .sample = false,
                         .targets = {}},
                        {.slot = 3,
                         .is_context = false,
                         .past_length = 9,
                         .tokens = {},
                         .blocks = blocks_[2],
                         .sample = true,
                         .targets = {}}};
    for (const char* array :
         {"input_ids", "position_ids", "context_lengths", "sequence_length", "query_start",
          "query_length", "host_request_types", "host_past_key_value_lengths", "host_query_length",
          "last_token_ids", "targets", "target_counts", "prompt_segments"}) {
      std::fill_n(buffers_.host(array), 4, kStale);
    }
    std::fill_n(buffers_.host("input_ids"), 12, kStale);
    std::fill_n(buffers_.host("position_ids"), 12, kStale);
    std::fill_n(buffers_.host("kv_cache_block_offsets"), 2 * 4 * 3, kStale);
  }

  StepShape fill() { return fill_step_buffers(batch_, {kLimits, slots_, kHistory}, buffers_); }
  Ids read(const char* array, int count) {
    const int32_t* data = buffers_.host(array);
    return {data, data + count};
  }

  const std::unique_ptr<device::Device> device_ = device::make_cpu_device(1);
  StepBuffers buffers_{kLimits, *device_};
  const Ids chunk_ = {11, 12, 13}, prompt_ = {21, 22};
  // By sequence, then group; the second group has a window that no longer sees its first block.
  const std::vector<std::vector<BlockList>> blocks_ = {
      {{5, 6}, {kNoBlock, 1}}, {{8}, {2}}, {{9, 10, 11}, {kNoBlock, 3, 4}}};
  std::vector<SlotSampling> slots_;
  Batch batch_;
};

TEST_F(BatchUploadTest, PackedRowsFollowEachOther) {
  const StepShape shape = fill();
  EXPECT_EQ(shape.rows, 6);
  EXPECT_EQ(shape.sequences, 3);
  EXPECT_EQ(shape.context_sequences, 2);
  EXPECT_EQ(shape.first_row, (std::vector<int>{0, 3, 5}));
  EXPECT_EQ(shape.sampled, 2);
  EXPECT_EQ(shape.sampled_sequence, (std::vector<int>{0, 2}));
  EXPECT_EQ(shape.prompt_segments, 2);

  // The token at position 9 of slot 3: -1 - (3 * 32 + 9).
  EXPECT_EQ(read("input_ids", 7), (Ids{11, 12, 13, 21, 22, -106, kStale}));
  EXPECT_EQ(read("position_ids", 7), (Ids{4, 5, 6, 0, 1, 9, kStale}));
  EXPECT_EQ(read("context_lengths", 4), (Ids{9, 2, 8, kStale}));
  EXPECT_EQ(read("sequence_length", 4), (Ids{7, 2, 10, kStale}));
  EXPECT_EQ(read("query_start", 4), (Ids{0, 3, 5, kStale}));
  EXPECT_EQ(read("query_length", 4), (Ids{3, 2, 1, kStale}));
  EXPECT_EQ(read("host_query_length", 4), (Ids{3, 2, 1, kStale}));
  EXPECT_EQ(read("host_request_types", 4), (Ids{0, 0, 1, kStale}));
  EXPECT_EQ(read("host_past_key_value_lengths", 4), (Ids{4, 0, 9, kStale}));
  EXPECT_EQ(read("last_token_ids", 3), (Ids{2, 5, kStale}));
  EXPECT_EQ(read("target_counts", 3), (Ids{3, 3, kStale}));
  // Slot, past, first row, rows.
  EXPECT_EQ(read("prompt_segments", 8), (Ids{2, 4, 0, 3, 0, 0, 3, 2}));
}

TEST_F(BatchUploadTest, PaddedRowsDifferInNothingElse) {
  batch_.padded = true;
  const StepShape shape = fill();
  EXPECT_EQ(shape.rows, 9);
  EXPECT_EQ(shape.first_row, (std::vector<int>{0, 3, 6}));
  // Rows of nobody hold token 0 at position 0, whatever was there.
  EXPECT_EQ(read("input_ids", 10), (Ids{11, 12, 13, 21, 22, 0, -106, 0, 0, kStale}));
  EXPECT_EQ(read("position_ids", 10), (Ids{4, 5, 6, 0, 1, 0, 9, 0, 0, kStale}));
  EXPECT_EQ(read("query_start", 3), (Ids{0, 3, 6}));
  EXPECT_EQ(read("query_length", 3), (Ids{3, 2, 1}));
  EXPECT_EQ(read("sequence_length", 3), (Ids{7, 2, 10}));
  EXPECT_EQ(read("last_token_ids", 3), (Ids{2, 6, kStale}));
  EXPECT_EQ(read("prompt_segments", 8), (Ids{2, 4, 0, 3, 0, 0, 3, 2}));
}

TEST_F(BatchUploadTest, BlockTablesAreOneRowASequenceInEachGroup) {
  fill();
  const Ids table = read("kv_cache_block_offsets", 18);  // [2, 3, 3]
  const auto row = [&](size_t group, size_t sequence, size_t count) {
    const auto first = table.begin() + static_cast<int64_t>((group * 3 + sequence) * 3);
    return Ids(first, first + static_cast<int64_t>(count));
  };
  for (size_t group = 0; group < 2; ++group) {
    for (size_t s = 0; s < 3; ++s)
      EXPECT_EQ(row(group, s, blocks_[s][group].size()), blocks_[s][group]) << group << " " << s;
  }
}

TEST_F(BatchUploadTest, SamplingRecordsAreThoseOfTheSlots) {
  EXPECT_TRUE(fill().adjusts);
  const int32_t* rows = buffers_.host(StepBuffers::kSamplingRows);
  const ops::SamplingRow first = ops::read_sampling_row(rows, 0);
  EXPECT_EQ(first.slot, 2);
  EXPECT_EQ(first.length, 7);  // the position that is chosen
  EXPECT_EQ(first.prompt_length, 9);
  EXPECT_EQ(first.flags, ops::kSamplingAdjusts);
  EXPECT_EQ(first.logit_bias.offset, 40);
  EXPECT_EQ(first.logit_bias.count, 2);
  const ops::SamplingRow second = ops::read_sampling_row(rows, 1);
  EXPECT_EQ(second.slot, 3);
  EXPECT_EQ(second.length, 10);
  EXPECT_EQ(second.prompt_length, 8);
  EXPECT_EQ(second.flags, 0);

  batch_.sequences.erase(batch_.sequences.begin());
  EXPECT_FALSE(fill().adjusts);
}

// A step with room for more sequences than there are: what is left over owns nothing.
TEST_F(BatchUploadTest, KnowsHowLongTheLongestSequenceIs) {
  EXPECT_EQ(fill().length_class, 0);
  for (const auto& [past, length_class] :
       {std::pair{3071, 0}, {3072, 1}, {7679, 1}, {7680, 2}, {100'000, 2}}) {
    batch_.sequences[2].past_length = past;
    EXPECT_EQ(fill().length_class, length_class) << past;
  }
}

TEST_F(BatchUploadTest, StepsMayHaveRoomForMoreSequences) {
  for (StepSequence& s : batch_.sequences) {
    s.is_context = false;
    s.tokens = {};
    s.sample = true;
  }
  const StepShape shape = fill_step_buffers(
      batch_, {.limits = kLimits, .slots = slots_, .history_length = kHistory, .padded_rows = 4},
      buffers_);
  EXPECT_EQ(shape.rows, 4);
  EXPECT_EQ(shape.sequences, 4);
  EXPECT_EQ(shape.sampled, 4);
  EXPECT_EQ(shape.context_sequences, 0);
  EXPECT_EQ(shape.sampled_sequence, (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(read("input_ids", 5), (Ids{-69, -1, -106, 0, kStale}));  // -1 - (slot * 32 + position)
  EXPECT_EQ(read("position_ids", 5), (Ids{4, 0, 9, 0, kStale}));
  EXPECT_EQ(read("sequence_length", 4), (Ids{5, 1, 10, 0}));
  EXPECT_EQ(read("query_start", 4), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(read("query_length", 4), (Ids{1, 1, 1, 0}));
  EXPECT_EQ(read("host_query_length", 4), (Ids{1, 1, 1, 0}));
  EXPECT_EQ(read("host_request_types", 4), (Ids{1, 1, 1, 1}));
  EXPECT_EQ(read("last_token_ids", 4), (Ids{0, 1, 2, 3}));
  const int32_t* rows = buffers_.host(StepBuffers::kSamplingRows);
  EXPECT_EQ(ops::read_sampling_row(rows, 2).slot, 3);
  EXPECT_EQ(ops::read_sampling_row(rows, 3).slot, -1);
  EXPECT_EQ(ops::read_sampling_row(rows, 3).flags, 0);
  // [2, 4, 3]: the second group's tables follow those of all four sequences.
  const Ids table = read("kv_cache_block_offsets", 24);
  EXPECT_EQ(Ids(table.begin() + 6, table.begin() + 9), (Ids{9, 10, 11}));
  EXPECT_EQ(Ids(table.begin() + 18, table.begin() + 21), (Ids{kNoBlock, 3, 4}));
}

TEST(RowBucket, IsTheNextSizeThatIsCaptured) {
  const std::vector<int> sizes = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};
  for (int rows = 1; rows <= 256; ++rows) {
    const int expected = *std::lower_bound(sizes.begin(), sizes.end(), rows);
    EXPECT_EQ(row_bucket(rows, 256), expected) << rows;
    EXPECT_EQ(row_bucket(rows, std::max(rows, 100)), std::min(expected, std::max(rows, 100)));
  }
}

TEST_F(BatchUploadTest, WhatCannotBeLaidOutEndsTheProcess) {
  std::swap(batch_.sequences[1], batch_.sequences[2]);
  EXPECT_DEATH(fill(), "a context sequence after a generation sequence");
  std::swap(batch_.sequences[1], batch_.sequences[2]);
  const Ids many(8, 1);  // padded, 3 x 8 rows
  batch_.padded = true;
  batch_.sequences[0].tokens = many;
  EXPECT_DEATH(fill(), "24 rows");
}

// The copy on the device follows only where it was uploaded, and host arrays are read on the host.
TEST(StepBuffers, UploadsWhatIsInUse) {
  const auto device = device::make_cpu_device(1);
  StepBuffers buffers(kLimits, *device);
  const auto on_device = [&](const char* array, int index) {
    return static_cast<const int32_t*>(buffers.address(array))[index];
  };
  for (const char* array : {"input_ids", "last_token_ids", "kv_cache_block_offsets"}) {
    for (int i = 0; i < 4; ++i)
      buffers.host(array)[i] = 100 + i;
    EXPECT_NE(buffers.address(array), buffers.host(array));
    EXPECT_EQ(on_device(array, 0), 0);
  }
  buffers.host("host_query_length")[0] = 5;
  EXPECT_EQ(buffers.address("host_query_length"), buffers.host("host_query_length"));

  buffers.upload("last_token_ids", 2);
  EXPECT_EQ(on_device("last_token_ids", 1), 101);
  EXPECT_EQ(on_device("last_token_ids", 2), 0);
  EXPECT_EQ(on_device("input_ids", 0), 0);
  int64_t begun = 0;
  buffers.begin_step({{"input_ids", 4}, {"last_token_ids", 0}, {"kv_cache_block_offsets", 3}},
                     &begun);
  EXPECT_GT(begun, 0);
  EXPECT_EQ(on_device("input_ids", 3), 103);
  EXPECT_EQ(on_device("last_token_ids", 2), 0);
  EXPECT_EQ(on_device("kv_cache_block_offsets", 2), 102);
  EXPECT_EQ(on_device("kv_cache_block_offsets", 3), 0);

  EXPECT_EQ(buffers.address("no_such_input"), nullptr);
  EXPECT_DEATH(buffers.upload("last_token_ids", 5), "last_token_ids is too short for 5");
  EXPECT_DEATH(buffers.begin_step({{"input_ids", 13}}, &begun), "input_ids is too short for 13");
}

// What a batch wrote is what arrives: nothing that fill_step_buffers() sets is left out.
TEST_F(BatchUploadTest, EverythingThatWasFilledInIsInUse) {
  batch_.logprobs = 3;
  const StepShape shape = fill();
  const StepBuffers::Arrays arrays = StepBuffers::arrays_in_use(shape, kLimits);
  int64_t begun = 0;
  buffers_.begin_step(arrays, &begun);
  for (const auto& [name, count] : StepBuffers::arrays_of(kLimits)) {
    if (name.starts_with("host_") || name == StepBuffers::kTargets) continue;
    const auto* on_device = static_cast<const int32_t*>(buffers_.address(name));
    const auto used = std::find_if(arrays.begin(), arrays.end(),
                                   [&, n = name](const auto& array) { return array.name == n; });
    ASSERT_NE(used, arrays.end()) << name;
    ASSERT_GT(used->count, 0) << name;
    for (int64_t i = 0; i < count; ++i) {
      if (i < used->count) {
        EXPECT_EQ(on_device[i], buffers_.host(name)[i]) << name << " " << i;
      } else {
        EXPECT_EQ(on_device[i], 0) << name << " " << i;
      }
    }
  }
  EXPECT_LE(arrays.size(), size_t{device::kMaxTransferParts});
}

// Filling every array to its full length changes no other.
TEST(StepBuffers, ArraysDoNotOverlap) {
  const auto device = device::make_cpu_device(1);
  StepBuffers buffers(kLimits, *device);
  const std::vector<std::pair<const char*, int>> arrays = {{"input_ids", 12},
                                                           {"position_ids", 12},
                                                           {"context_lengths", 4},
                                                           {"sequence_length", 4},
                                                           {"query_start", 4},
                                                           {"query_length", 4},
                                                           {"host_request_types", 4},
                                                           {"host_past_key_value_lengths", 4},
                                                           {"host_query_length", 4},
                                                           {"last_token_ids", 4},
                                                           {"targets", 4},
                                                           {"target_counts", 4},
                                                           {"sampling_rows", 4 * 32},
                                                           {"prompt_segments", 4 * 4},
                                                           {"kv_cache_block_offsets", 2 * 4 * 3}};
  for (size_t i = 0; i < arrays.size(); ++i)
    std::fill_n(buffers.host(arrays[i].first), arrays[i].second, static_cast<int32_t>(i + 1));
  for (size_t i = 0; i < arrays.size(); ++i) {
    const auto& [name, count] = arrays[i];
    EXPECT_EQ(Ids(buffers.host(name), buffers.host(name) + count),
              Ids(static_cast<size_t>(count), static_cast<int32_t>(i + 1)))
        << name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffers.host(name)) % 64, 0U) << name;
  }
}

}  // namespace
}  // namespace millrace::runtime
