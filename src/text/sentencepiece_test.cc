// tokenizer.model files against the sentencepiece package
// (tests/data/text-goldens/make_spm_goldens.py).
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "base/json.h"
#include "millrace/error.h"
#include "millrace/text.h"
#include "text/golden_file.h"

namespace millrace {
namespace {

constexpr const char* kNames[] = {"bpe-byte", "unigram-nmt", "bpe-rules", "unigram-byte",
                                  "unigram-suffix"};
constexpr EncodeOptions kPlain = {.add_special_tokens = false, .allow_special_in_text = false};

std::string model_bytes(const std::string& name) {
  std::ifstream file(test_data("text-goldens/" + name + ".model"), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Tokenizer open_model(const std::string& name, const std::string& config = "{}") {
  const std::vector<TextAsset> assets = {{"tokenizer.model", model_bytes(name)},
                                         {"tokenizer_config.json", config}};
  return Tokenizer::open(assets, name);
}

class SentencePieceGolden : public testing::TestWithParam<const char*> {};

TEST_P(SentencePieceGolden, EncodesAndDecodes) {
  static const Json goldens = read_golden("text-goldens/spm_goldens.json");
  const Json& golden = goldens.at(GetParam());
  const Tokenizer tokenizer = open_model(GetParam());
  EXPECT_EQ(tokenizer.vocab_size(), golden.at("vocab_size"));
  for (const Json& test : golden.at("cases")) {
    SCOPED_TRACE(json_line(test.at("text")));
    const std::string text = test.at("text");
    const Ids ids = test.at("ids");
    EXPECT_EQ(tokenizer.encode(text, kPlain), ids);
    EXPECT_EQ(tokenizer.decode(ids), test.at("text_back").get<std::string>());
  }
  for (const Json& test : golden.at("wild")) {
    SCOPED_TRACE(json_line(test.at("ids")));
    const std::string text = test.at("text_back");
    EXPECT_EQ(tokenizer.decode(test.at("ids").get<Ids>()), text);
    IncrementalDecoder decoder(tokenizer);
    std::string joined;
    for (const int32_t id : test.at("ids").get<Ids>())
      joined += decoder.push(id);
    EXPECT_EQ(joined + decoder.flush(), text);
  }
}

INSTANTIATE_TEST_SUITE_P(All, SentencePieceGolden, testing::ValuesIn(kNames),
                         [](const auto& test) { return case_name(test.param); });

TEST(SentencePiece, SpecialTokensFollowTheConfiguration) {
  const Tokenizer llama = open_model("bpe-byte");
  EXPECT_EQ(llama.bos_id(), 1);
  EXPECT_EQ(llama.eos_id(), 2);
  EXPECT_EQ(llama.unk_id(), 0);
  EXPECT_EQ(llama.encode("")[0], 1);
  const Ids plain = llama.encode("the house", kPlain);
  Ids with_both = plain;
  with_both.insert(with_both.begin(), 1);
  EXPECT_EQ(llama.encode("the house"), with_both);
  with_both.push_back(2);
  EXPECT_EQ(open_model("bpe-byte", R"({"add_eos_token": true})").encode("the house"), with_both);
  with_both.erase(with_both.begin());
  EXPECT_EQ(open_model("bpe-byte", R"({"tokenizer_class": "T5Tokenizer"})").encode("the house"),
            with_both);
}

// A control piece is a special token only where text may hold special tokens.
TEST(SentencePiece, ControlPiecesInText) {
  const Tokenizer tokenizer = open_model("bpe-byte");
  const Ids apart = tokenizer.encode("a</s>", kPlain);
  EXPECT_EQ(std::count(apart.begin(), apart.end(), 2), 0);
  const Ids allowed = tokenizer.encode("a</s>", {false, true});
  EXPECT_EQ(allowed.back(), 2);
}

TEST(SentencePiece, DamagedFilesAreErrors) {
  const std::string whole = model_bytes("bpe-byte");
  int failures = 0;
  for (size_t size = 0; size < whole.size(); size += 97) {
    const std::vector<TextAsset> assets = {{"tokenizer.model", whole.substr(0, size)}};
    try {
      (void)Tokenizer::open(assets, "folder").encode("Hello there");
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("tokenizer.model"), std::string::npos);
      ++failures;
    }
  }
  // A cut between two pieces leaves a valid file with fewer of them.
  EXPECT_GT(failures, 100);
}

}  // namespace
}  // namespace millrace
