// Finds stop texts in text that arrives in pieces.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

class StopTexts {
 public:
  /// REQUIRES: no text is empty.
  explicit StopTexts(std::vector<std::string> texts) : texts_(std::move(texts)) {}

  /// Takes the next piece and returns what may be shown: everything that cannot be the beginning of
  /// a stop text. Once one is found, what stands before it is returned and nothing after it.
  std::string push(std::string_view piece);
  /// What was held back, when the text ends without a stop text.
  std::string flush();
  /// The stop text that was found.
  const std::optional<std::string>& found() const { return found_; }

 private:
  std::vector<std::string> texts_;
  std::string held_;  // not shown yet
  std::optional<std::string> found_;
};

}  // namespace millrace
