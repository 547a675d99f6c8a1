// The one exception type of Millrace. Everything that can fail while building, loading or setting
// up throws it.
#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace millrace {

enum class ErrorCode {
  kFailed,    // failed while running (exit status 1): disk full, out of memory, device error
  kBadInput,  // bad usage or bad input (exit status 2): file, flag, model, text
};

/// An error that a person can act on. `what()` is one line: `WHAT WENT WRONG (WHERE); WHAT TO DO`.
class Error : public std::exception {
 public:
  /// `where` and `advice` may be empty; the parentheses and the semicolon are then left out.
  Error(ErrorCode code, std::string message, std::string where = "", std::string advice = "");

  const char* what() const noexcept override { return text_.c_str(); }
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& where() const { return where_; }
  const std::string& advice() const { return advice_; }

  /// Puts an outer place before the present one: `model.safetensors: model.norm.weight`.
  Error& add_context(std::string_view outer);

 private:
  void compose();

  ErrorCode code_;
  std::string message_, where_, advice_, text_;
};

}  // namespace millrace
