// Broken invariants end the process at once, with their place: a planner bug that went on would
// answer one user with another's text. For what a user can cause, throw an Error instead
// (base/error.h).
#pragma once

#include <source_location>
#include <string>

#include "base/str.h"

namespace millrace {

[[noreturn]] void check_failed(const char* condition, const std::string& message,
                               std::source_location where = std::source_location::current());

}  // namespace millrace

/// CHECK(condition, parts...): aborts with the condition, the parts and the location when the
/// condition is false.
#define CHECK(condition, ...)                                             \
  do {                                                                    \
    if (!(condition)) [[unlikely]] {                                      \
      ::millrace::check_failed(#condition, ::millrace::str(__VA_ARGS__)); \
    }                                                                     \
  } while (false)

/// As CHECK, in debug and sanitizer builds only: for hot paths.
#ifdef MILLRACE_DCHECK
#define DCHECK(condition, ...) CHECK(condition __VA_OPT__(, ) __VA_ARGS__)
#else
#define DCHECK(condition, ...) \
  do {                         \
  } while (false)
#endif
