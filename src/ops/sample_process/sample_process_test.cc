#include "ops/sample_process/sample_process.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "ops/common/sampling_testing.h"
#include "ops/harness/op_call.h"

namespace millrace::ops {
namespace {

using Json = nlohmann::json;

constexpr float kMasked = -std::numeric_limits<float>::infinity();

/// One row: its logits, its history and what is wanted of it.
struct TestRow {
  std::vector<float> logits;
  std::vector<int32_t> history;
  PackedSampling packed;
};

/// The adjusted logits of rows that share a launch, in slots from the last down.
std::vector<std::vector<float>> process(const std::vector<TestRow>& rows,
                                        const std::string& tactic) {
  const int64_t count = std::ssize(rows), vocab = std::ssize(rows[0].logits);
  constexpr int64_t kCapacity = 64;
  std::vector<float> logits;
  std::vector<int32_t> lists = {-1}, history(static_cast<size_t>(count * kCapacity), -9);
  std::vector<SamplingRow> records;
  for (int64_t l = 0; l < count; ++l) {
    const TestRow& row = rows[static_cast<size_t>(l)];
    const auto slot = static_cast<int>(count - 1 - l);
    records.push_back(sampling_row_at(row.packed, slot, static_cast<int>(row.history.size()),
                                      static_cast<int>(lists.size())));
    lists.insert(lists.end(), row.packed.lists.begin(), row.packed.lists.end());
    logits.insert(logits.end(), row.logits.begin(), row.logits.end());
    std::copy(row.history.begin(), row.history.end(), history.begin() + slot * kCapacity);
  }
  const std::vector<float> before(logits.size(), 777.0f);
  const auto out =
      call_op("sample_process", {},
              {host_floats({count, vocab}, logits),
               host_ints({count, kSamplingRowWords}, row_words(records)),
               host_ints({std::ssize(lists)}, lists), host_ints({count, kCapacity}, history),
               host_floats({count, vocab}, before)},
              tactic);
  const auto flat = out[0].floats();
  std::vector<std::vector<float>> adjusted;
  for (int64_t l = 0; l < count; ++l) {
    const bool acts = (records[static_cast<size_t>(l)].flags & kSamplingAdjusts) != 0;
    const auto first = (acts ? flat : logits).begin() + l * vocab;
    adjusted.emplace_back(first, first + vocab);
    if (!acts) {
      EXPECT_EQ(flat[static_cast<size_t>(l * vocab)], 777.0f) << "a row to leave alone";
    }
  }
  return adjusted;
}

SamplingParams params_of(const Json& options) {
  SamplingParams p;
  for (const auto& [name, value] : options.items()) {
    if (name == "sequence_bias") {
      for (const Json& pair : value)
        p.logit_bias.emplace_back(pair[0][0].get<int>(), pair[1].get<float>());
    } else if (name == "repetition_penalty") {
      p.repetition_penalty = value;
    } else if (name == "no_repeat_ngram_size") {
      p.no_repeat_ngram_size = value;
    } else if (name == "bad_words_ids") {
      p.bad_words = value.get<std::vector<std::vector<int>>>();
    } else if (name == "min_new_tokens") {
      p.min_new_tokens = value;
    } else if (name == "forced_bos_token_id") {
      p.forced_bos_token_id = value.get<int>();
    } else if (name == "forced_eos_token_id") {
      p.forced_eos_token_ids = value.get<std::vector<int>>();
    } else if (name == "suppress_tokens") {
      p.suppress_tokens = value.get<std::vector<int>>();
    } else if (name == "begin_suppress_tokens") {
      p.begin_suppress_tokens = value.get<std::vector<int>>();
    } else if (name == "eos_token_id") {
      p.end_token_ids = value.get<std::vector<int>>();
    } else {
      ADD_FAILURE() << "unknown option " << name;
    }
  }
  return p;
}

std::vector<float> wanted(const Json& golden, const std::vector<float>& logits) {
  const bool is_only = golden.contains("only");
  std::vector<float> out = is_only ? std::vector<float>(logits.size(), kMasked) : logits;
  for (const auto& [token, value] : golden.at(is_only ? "only" : "changed").items()) {
    out[std::stoul(token)] = value.is_null() ? kMasked : value.get<float>();
  }
  return out;
}

// Bit for bit: the arithmetic is transformers' own.
TEST(SampleProcess, AsTransformers) {
  const Json goldens =
      parse_json_file(MILLRACE_SOURCE_DIR "/tests/data/sampling/processors.json").at("cases");
  ASSERT_GT(goldens.size(), 250u);
  for (const std::string& tactic : cpu_tactics("sample_process")) {
    for (size_t i = 0; i < goldens.size(); ++i) {
      const Json& golden = goldens[i];
      TestRow row;
      row.logits = golden_logits(golden["seed"], golden["vocab"], golden["spread"], golden["grid"]);
      row.history = golden["ids"].get<std::vector<int32_t>>();
      const SamplingParams params = params_of(golden["options"]);
      ASSERT_NO_THROW(params.validate(golden["vocab"].get<int>()));
      row.packed = pack_sampling(params, {.prompt_length = golden["prompt_length"],
                                          .max_new_tokens = golden["max_new_tokens"]});
      EXPECT_EQ(process({row}, tactic)[0], wanted(golden, row.logits))
          << tactic << ", case " << i << ": " << golden["options"];
    }
  }
}

// mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence, in double; OpenAI's API
// reference, "frequency and presence penalties". Counts are those of the new tokens.
TEST(SampleProcess, PresenceAndFrequencyAsOpenAi) {
  constexpr int kVocab = 40, kPrompt = 6;
  for (const auto& [presence, frequency] :
       {std::pair{0.6, 0.0}, {0.0, 0.3}, {1.7, 0.9}, {-2.0, 2.0}, {0.5, -0.25}}) {
    SamplingParams params;
    params.presence_penalty = presence;
    params.frequency_penalty = frequency;
    TestRow row;
    row.logits = golden_logits(5, kVocab, 8, 0);
    row.history = {1, 2, 3, 3, 3, 39, 7, 7, 2, 7, 7, 0, 39, 2, 99, -1};
    row.packed = pack_sampling(params, {.prompt_length = kPrompt});
    for (const std::string& tactic : cpu_tactics("sample_process")) {
      const auto got = process({row}, tactic)[0];
      for (int t = 0; t < kVocab; ++t) {
        const auto count =
            static_cast<double>(std::count(row.history.begin() + kPrompt, row.history.end(), t));
        const double want = static_cast<double>(row.logits[static_cast<size_t>(t)]) -
                            count * frequency - (count > 0 ? presence : 0);
        EXPECT_NEAR(got[static_cast<size_t>(t)], want, 2e-6) << tactic << ", token " << t;
      }
    }
  }
}

// The order: bias before the penalties, repetition before the others, masks after all.
TEST(SampleProcess, PenaltiesCompose) {
  SamplingParams params;
  params.logit_bias = {{1, -4.0f}, {2, 1.0f}};
  params.repetition_penalty = 2;
  params.presence_penalty = 0.5;
  params.frequency_penalty = 0.25;
  params.suppress_tokens = {3};
  TestRow row;
  row.logits = {1, 2, 3, 4, -1};
  row.history = {0, 1, 4, 1, 1, 3};
  row.packed = pack_sampling(params, {.prompt_length = 1});
  for (const std::string& tactic : cpu_tactics("sample_process")) {
    const std::vector<float> want = {0.5f, (2.0f - 4) * 2 - (3 * 0.25f + 0.5f), 4, kMasked,
                                     -2 - 0.75f};
    EXPECT_EQ(process({row}, tactic)[0], want) << tactic;
  }
}

std::vector<TestRow> mixed_rows() {
  std::vector<TestRow> rows;
  for (int l = 0; l < 37; ++l) {
    SamplingParams params;
    if (l % 5 != 0) params.repetition_penalty = 1.0 + 0.1 * l;
    if (l % 3 == 0) params.frequency_penalty = 0.3;
    if (l % 4 == 1) params.logit_bias = {{l, 2.5f}};
    if (l % 7 == 2) params.no_repeat_ngram_size = 2;
    if (l % 6 == 3) params.bad_words = {{l}, {3, 4}};
    TestRow row;
    row.logits = golden_logits(100 + l, 50, 8, 0);
    for (int i = 0; i < 3 + l; ++i)
      row.history.push_back((i * i + l) % 11);
    row.packed = pack_sampling(params, {.prompt_length = l % 4});
    rows.push_back(row);
  }
  return rows;
}

TEST(SampleProcess, RowsDoNotSeeEachOther) {
  const auto rows = mixed_rows();
  for (const std::string& tactic : cpu_tactics("sample_process")) {
    const auto together = process(rows, tactic);
    for (size_t l = 0; l < rows.size(); ++l) {
      EXPECT_EQ(together[l], process({rows[l]}, "sample_process_ref")[0]) << tactic << " " << l;
    }
  }
}

}  // namespace
}  // namespace millrace::ops
