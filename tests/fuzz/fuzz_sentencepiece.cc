// Bytes as SentencePiece's tokenizer.model: it opens or throws, and what opens encodes and decodes
// without harm.
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
    const std::vector<millrace::TextAsset> assets = {{"tokenizer.model", bytes}};
    const Tokenizer tokenizer = Tokenizer::open(assets, "fuzz");
    const std::vector<int32_t> ids =
        tokenizer.encode("It's 12 <s>\n\u00fcn\u00ef  \U0001f600 \uff21");
    const std::string text = tokenizer.decode(ids);
    millrace::IncrementalDecoder decoder(tokenizer);
    std::string joined;
    for (const int32_t id : ids)
      joined += decoder.push(id);
    CHECK(joined + decoder.flush() == text);
  } catch (const millrace::Error&) {
  }
  return 0;
}
