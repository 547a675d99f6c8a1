// Shorthands for throwing millrace::Error (include/millrace/error.h).
#pragma once

#include "base/str.h"
#include "millrace/error.h"

namespace millrace {

/// The input (file, flag, model, text) is at fault: exit status 2.
[[noreturn]] void throw_bad_input(std::string message, std::string where = "",
                                  std::string advice = "");

/// The machine or the run is at fault (disk full, no memory, device error): exit status 1.
[[noreturn]] void throw_failed(std::string message, std::string where = "",
                               std::string advice = "");

}  // namespace millrace
