#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace millrace {

void check_failed(const char* condition, const std::string& message, std::source_location where) {
  std::fprintf(stderr, "millrace: internal error: %s%s%s (%s:%u, %s)\n", condition,
               message.empty() ? "" : ": ", message.c_str(), where.file_name(), where.line(),
               where.function_name());
  std::abort();
}

}  // namespace millrace
