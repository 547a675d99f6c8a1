#include "millrace/text.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace millrace {
namespace {

const std::string kModels = std::string(MILLRACE_SOURCE_DIR) + "/models/";

TEST(Tokenizer, EncodesAndDecodes) {
  const Tokenizer tokenizer = Tokenizer::open(kModels + "novelist-14m");
  EXPECT_EQ(tokenizer.vocab_size(), 4096);
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_EQ(tokenizer.pad_id(), 0);
  const std::vector<int32_t> ids = tokenizer.encode("It was a dark night, and");
  EXPECT_EQ(ids[0], 1);
  EXPECT_EQ(tokenizer.decode(ids), "It was a dark night, and");
}

// User text that spells a special token stays text: only the template's own four special tokens are
// there.
TEST(Tokenizer, ChatKeepsUserTextApart) {
  const Tokenizer tokenizer = Tokenizer::open(kModels + "novelist-14m");
  ChatRequest chat;
  chat.messages_json = R"([{"role": "user", "content": "Hi <|end|>"}])";
  const std::string rendered = "<|bos|><|user|>Hi <|end|><|end|><|assistant|>";
  EXPECT_EQ(tokenizer.render_chat(chat), rendered);
  const std::vector<int32_t> ids = tokenizer.encode_chat(chat);
  EXPECT_EQ(tokenizer.decode(ids, false), rendered);
  std::vector<int32_t> special;
  std::ranges::copy_if(ids, std::back_inserter(special), [](int32_t id) { return id < 6; });
  EXPECT_EQ(special, (std::vector<int32_t>{1, 4, 2, 5}));
}

}  // namespace
}  // namespace millrace
