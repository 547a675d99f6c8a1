// Bytes as tokenizer.json: it opens or throws, and what opens encodes and decodes without harm.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "millrace/error.h"
#include "millrace/text.h"

using millrace::Tokenizer;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  try {
    const std::vector<millrace::TextAsset> assets = {{"tokenizer.json", bytes}};
    const Tokenizer tokenizer = Tokenizer::open(assets, "fuzz");
    const std::string text = "It's 12 <s>\n\u00fcn\u00ef  \U0001f600" + bytes.substr(0, 64);
    std::vector<int32_t> ids;
    try {
      ids = tokenizer.encode(text);
    } catch (const millrace::Error&) {  // the text need not be UTF-8
      ids = {0, 1, 2, 3, 2, 1, 1 << 30};
    }
    millrace::IncrementalDecoder decoder(tokenizer, false);
    std::string joined;
    for (const int32_t id : ids)
      joined += decoder.push(id);
    joined += decoder.flush();
    CHECK(joined == tokenizer.decode(ids, false));
  } catch (const millrace::Error&) {
  }
  return 0;
}
