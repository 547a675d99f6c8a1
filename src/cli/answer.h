// The text of one answer while it is made: ids in, text out, stop texts watched.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "millrace/engine.h"
#include "text/stop_texts.h"

namespace millrace::cli {

class Answer {
 public:
  /// Without a tokenizer there is no text, and stop texts are refused.
  Answer(const Engine& engine, const SamplingParams& sampling);

  /// Takes a token and returns the text that it completes. End tokens have no text.
  std::string push(int32_t id);
  /// The rest, when the answer ends.
  std::string finish();
  /// The stop text that was found: the answer ends with the token pushed last.
  const std::optional<std::string>& stop_text() const { return stops_.found(); }
  /// All text so far; none without a tokenizer.
  std::optional<std::string> text() const;

 private:
  std::optional<IncrementalDecoder> decoder_;
  StopTexts stops_;
  std::string text_;
};

}  // namespace millrace::cli
