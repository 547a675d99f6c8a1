#include "text/stop_texts.h"

#include <algorithm>
#include <utility>

namespace millrace {

std::string StopTexts::push(std::string_view piece) {
  if (found_) return "";
  held_ += piece;
  // The stop text that is complete first ends the text, so that it does not matter in which pieces
  // the text arrives; of two that are complete together, the longer.
  size_t first = 0, end = std::string::npos;
  const std::string* best = nullptr;
  for (const std::string& text : texts_) {
    const size_t at = held_.find(text);
    if (at == std::string::npos) continue;
    const size_t text_end = at + text.size();
    if (text_end < end || (text_end == end && at < first)) {
      first = at;
      end = text_end;
      best = &text;
    }
  }
  if (best != nullptr) {
    found_ = *best;
    held_.resize(first);
    return std::exchange(held_, "");
  }
  // Hold back the longest ending that a stop text begins with.
  size_t keep = 0;
  for (const std::string& text : texts_) {
    for (size_t n = std::min(text.size() - 1, held_.size()); n > keep; --n) {
      if (std::string_view(held_).substr(held_.size() - n) == std::string_view(text).substr(0, n)) {
        keep = n;
        break;
      }
    }
  }
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopTexts::flush() {
  return std::exchange(held_, "");
}

}  // namespace millrace
