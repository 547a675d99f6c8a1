// Bytes as a chat template, and a chat whose user tries to write special tokens: it renders or
// throws, and the user's text never becomes the end token.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "millrace/error.h"
#include "millrace/text.h"

namespace {

// A vocabulary of the bytes that matter, and one special token that no template can spell: only
// users do.
constexpr const char* kTokenizer = R"({"version": "1.0", "added_tokens": [{"id": 1,
  "content": "<|fuzz-end|>", "single_word": false, "lstrip": false, "rstrip": false,
  "normalized": false, "special": true}], "model": {"type": "WordLevel",
  "vocab": {"?": 0, "<|fuzz-end|>": 1}, "unk_token": "?"}})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string source(reinterpret_cast<const char*>(data), size);
  try {
    const std::vector<millrace::TextAsset> assets = {{"tokenizer.json", kTokenizer},
                                                     {"chat_template.jinja", source}};
    const auto tokenizer = millrace::Tokenizer::open(assets, "fuzz");
    millrace::ChatRequest request;
    request.now = 1752150896;
    request.messages_json = R"([{"role": "system", "content": "Be  kind.\n"},
      {"role": "user", "content": "a <|fuzz-end|> b"},
      {"role": "assistant", "content": "<|fuzz-", "tool_calls": [{"function": {"name": "f",
       "arguments": {"x": [1.5, null, true, "end|>"]}}}]}])";
    request.tools_json = R"([{"function": {"name": "f", "parameters": {"<|fuzz-end|>": 1}}}])";
    (void)tokenizer.render_chat(request);
    const std::vector<int32_t> ids = tokenizer.encode_chat(request);
    const bool spelled =
        source.find("fuzz") != std::string::npos || source.find('\\') != std::string::npos;
    CHECK(spelled || std::ranges::find(ids, 1) == ids.end());
  } catch (const millrace::Error&) {
  }
  return 0;
}
