#include "base/error.h"

#include <utility>

namespace millrace {

Error::Error(ErrorCode code, std::string message, std::string where, std::string advice)
    : code_(code),
      message_(std::move(message)),
      where_(std::move(where)),
      advice_(std::move(advice)) {
  compose();
}

Error& Error::add_context(std::string_view outer) {
  where_ = where_.empty() ? std::string(outer) : str(outer, ": ", where_);
  compose();
  return *this;
}

void Error::compose() {
  text_ = message_;
  if (!where_.empty()) text_ += str(" (", where_, ")");
  if (!advice_.empty()) text_ += str("; ", advice_);
  // One line whatever a file name or a library's message brings along.
  for (char& c : text_) {
    if (c == '\n' || c == '\r') c = ' ';
  }
}

void throw_bad_input(std::string message, std::string where, std::string advice) {
  throw Error(ErrorCode::kBadInput, std::move(message), std::move(where), std::move(advice));
}

void throw_failed(std::string message, std::string where, std::string advice) {
  throw Error(ErrorCode::kFailed, std::move(message), std::move(where), std::move(advice));
}

}  // namespace millrace
