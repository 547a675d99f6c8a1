#include "checkpoint/generation_defaults.h"

#include "checkpoint/test_folder.h"

namespace millrace {
namespace {

GenerationDefaults read(const std::string& text) {
  return read_generation_defaults(HfConfig::parse(text, "generation_config.json"));
}

std::string error_of(const std::string& text) {
  return bad_input_of([&] { read(text); });
}

TEST(GenerationDefaults, AnEmptyFileSaysNothing) {
  const GenerationDefaults defaults = read("{}");
  EXPECT_TRUE(defaults.eos_token_ids.empty());
  EXPECT_EQ(defaults.bos_token_id, std::nullopt);
  EXPECT_EQ(defaults.temperature, std::nullopt);
  EXPECT_EQ(defaults.do_sample, std::nullopt);
  EXPECT_EQ(defaults.early_stopping, std::nullopt);
  EXPECT_TRUE(defaults.unsupported.empty());
}

TEST(GenerationDefaults, ReadsWhatModelsSay) {
  const GenerationDefaults defaults = read(
      R"({"bos_token_id":128000,"eos_token_id":[128001,128008],"pad_token_id":-1,)"
      R"("do_sample":true,"temperature":0.6,"top_k":50,"top_p":0.9,"min_p":0.05,"typical_p":0.7,)"
      R"("repetition_penalty":1.1,"no_repeat_ngram_size":3,"max_length":20,"max_new_tokens":null,)"
      R"("min_new_tokens":2,"bad_words_ids":[[1,2],[3]],"suppress_tokens":[4],)"
      R"("begin_suppress_tokens":[220,50257],"forced_bos_token_id":0,"forced_eos_token_id":2,)"
      R"("num_beams":4,"length_penalty":-0.5,"early_stopping":"never",)"
      R"("decoder_start_token_id":2,"transformers_version":"4.40.0"})");
  EXPECT_EQ(defaults.bos_token_id, 128000);
  EXPECT_EQ(defaults.eos_token_ids, (std::vector<int64_t>{128001, 128008}));
  EXPECT_EQ(defaults.pad_token_id, std::nullopt);
  EXPECT_EQ(defaults.do_sample, true);
  EXPECT_EQ(defaults.temperature, 0.6);
  EXPECT_EQ(defaults.top_k, 50);
  EXPECT_EQ(defaults.top_p, 0.9);
  EXPECT_EQ(defaults.min_p, 0.05);
  EXPECT_EQ(defaults.typical_p, 0.7);
  EXPECT_EQ(defaults.repetition_penalty, 1.1);
  EXPECT_EQ(defaults.no_repeat_ngram_size, 3);
  EXPECT_EQ(defaults.max_length, 20);
  EXPECT_EQ(defaults.max_new_tokens, std::nullopt);
  EXPECT_EQ(defaults.min_new_tokens, 2);
  EXPECT_EQ(defaults.bad_words_ids, (std::vector<std::vector<int64_t>>{{1, 2}, {3}}));
  EXPECT_EQ(defaults.suppress_tokens, std::vector<int64_t>{4});
  EXPECT_EQ(defaults.begin_suppress_tokens, (std::vector<int64_t>{220, 50257}));
  EXPECT_EQ(defaults.forced_bos_token_id, 0);
  EXPECT_EQ(defaults.forced_eos_token_ids, std::vector<int64_t>{2});
  EXPECT_EQ(defaults.num_beams, 4);
  EXPECT_EQ(defaults.length_penalty, -0.5);
  EXPECT_EQ(defaults.early_stopping, "never");
  EXPECT_EQ(defaults.decoder_start_token_id, 2);
  EXPECT_TRUE(defaults.unsupported.empty());
}

TEST(GenerationDefaults, EarlyStoppingAlsoComesAsABoolean) {
  EXPECT_EQ(read(R"({"early_stopping":true})").early_stopping, "true");
  EXPECT_EQ(read(R"({"early_stopping":false})").early_stopping, "false");
}

TEST(GenerationDefaults, ListsWhatItCannotFollow) {
  EXPECT_EQ(read(R"({"num_beam_groups":1,"diversity_penalty":0.0,"renormalize_logits":false})")
                .unsupported,
            std::vector<std::string>{});
  EXPECT_EQ(read(R"({"num_beam_groups":2,"renormalize_logits":true,"sequence_bias":[[[1],2.0]]})")
                .unsupported,
            (std::vector<std::string>{"num_beam_groups", "sequence_bias", "renormalize_logits"}));
}

TEST(GenerationDefaults, BadValuesAreRefusedWithTheirKey) {
  const std::string file = " (generation_config.json)";
  EXPECT_EQ(error_of(R"({"temperature":-1})"),
            "temperature is -1 instead of a number of at least 0" + file);
  EXPECT_EQ(error_of(R"({"temperature":"hot"})"),
            "temperature is \"hot\" instead of a number of at least 0" + file);
  EXPECT_EQ(error_of(R"({"top_p":1.5})"), "top_p is 1.5 instead of a number from 0 to 1" + file);
  EXPECT_EQ(error_of(R"({"eos_token_id":"</s>"})"),
            "eos_token_id is \"</s>\" instead of a whole number from -1 to 2147483647" + file);
  EXPECT_EQ(error_of(R"({"eos_token_id":[2,-5]})"),
            "eos_token_id holds -5 instead of a whole number from 0 to 2147483647" + file);
  EXPECT_EQ(error_of(R"({"num_beams":0})"),
            "num_beams is 0 instead of a whole number from 1 to 65536" + file);
  EXPECT_EQ(error_of(R"({"early_stopping":"always"})"),
            "early_stopping is neither true nor false nor \"never\"" + file);
  EXPECT_EQ(error_of(R"({"repetition_penalty":0})"),
            "repetition_penalty is 0 instead of a number above 0" + file);
}

TEST(GenerationDefaults, WithoutItsFileConfigJsonIsAsked) {
  const TestFolder folder;
  folder.write("config.json", R"({"eos_token_id":7,"bos_token_id":6})");
  const HfConfig config = HfConfig::load(folder.path());
  EXPECT_EQ(load_generation_defaults(folder.path(), config).eos_token_ids, std::vector<int64_t>{7});
  folder.write("generation_config.json", R"({"eos_token_id":8})");
  const GenerationDefaults defaults = load_generation_defaults(folder.path(), config);
  EXPECT_EQ(defaults.eos_token_ids, std::vector<int64_t>{8});
  EXPECT_EQ(defaults.bos_token_id, std::nullopt);
}

}  // namespace
}  // namespace millrace
