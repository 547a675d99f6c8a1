// Tokenizers against transformers' AutoTokenizer: the bundled models and tiny ones in the style of
// well-known families (tests/data/text-goldens/make_tokenizer_goldens.py).
#include <random>

#include <gtest/gtest.h>

#include "millrace/text.h"
#include "text/golden_file.h"

namespace millrace {
namespace {

const Json& goldens() {
  static const Json json = read_golden("text-goldens/tokenizer_goldens.json");
  return json.at("tokenizer");
}

std::string folder_of(const std::string& name) {
  if (name.starts_with("tiny/")) return test_data("text-goldens/" + name);
  return std::string(MILLRACE_SOURCE_DIR) + "/models/" + name;
}

std::optional<int32_t> id_at(const Json& golden, const char* key) {
  if (golden.at(key).is_null()) return std::nullopt;
  return golden.at(key).get<int32_t>();
}

/// Decodes one id at a time and checks that no piece ends inside a character.
std::string decode_in_pieces(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  IncrementalDecoder decoder(tokenizer, skip_special);
  std::string text;
  const auto add = [&](const std::string& piece) {
    EXPECT_NO_THROW((void)Json(piece).dump()) << "a piece is not UTF-8";
    text += piece;
  };
  for (const int32_t id : ids)
    add(decoder.push(id));
  add(decoder.flush());
  return text;
}

class TokenizerGolden : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerGolden, Encodes) {
  const Json& golden = goldens().at(GetParam());
  const Tokenizer tokenizer = Tokenizer::open(folder_of(GetParam()));
  EXPECT_EQ(tokenizer.vocab_size(), golden.at("vocab_size"));
  EXPECT_EQ(tokenizer.bos_id(), id_at(golden, "bos_id"));
  EXPECT_EQ(tokenizer.eos_id(), id_at(golden, "eos_id"));
  EXPECT_EQ(tokenizer.pad_id(), id_at(golden, "pad_id"));
  for (const Json& test : golden.at("cases")) {
    const std::string text = test.at("text");
    SCOPED_TRACE(Json(text).dump());
    const Ids ids = test.at("ids");
    const Ids plain = test.value("plain", ids);
    EXPECT_EQ(tokenizer.encode(text), ids);
    EXPECT_EQ(tokenizer.encode(text, {.add_special_tokens = false}), plain);
    const Ids apart = test.value("apart", plain);
    EXPECT_EQ(tokenizer.encode(text, {false, false}), apart);
  }
}

TEST_P(TokenizerGolden, Decodes) {
  const Tokenizer tokenizer = Tokenizer::open(folder_of(GetParam()));
  for (const Json& test : goldens().at(GetParam()).at("cases")) {
    SCOPED_TRACE(test.at("text").dump());
    const Ids ids = test.at("ids");
    const std::string text = test.at("text_back");
    const std::string with_special = test.value("text_back_special", text);
    EXPECT_EQ(tokenizer.decode(ids), text);
    EXPECT_EQ(tokenizer.decode(ids, false), with_special);
    EXPECT_EQ(decode_in_pieces(tokenizer, ids, true), text);
    EXPECT_EQ(decode_in_pieces(tokenizer, ids, false), with_special);
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGolden,
                         testing::Values("novelist-14m", "digits-t5", "tiny/gpt2", "tiny/llama3",
                                         "tiny/qwen2", "tiny/o200k", "tiny/deepseek", "tiny/llama2",
                                         "tiny/bert", "tiny/unigram", "tiny/word-end"),
                         [](const auto& test) { return case_name(test.param); });

}  // namespace
}  // namespace millrace
