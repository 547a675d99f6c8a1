// Levelled log on standard error. spdlog stays in log.cc: its headers are slow to compile.
#pragma once

#include <string>
#include <string_view>

#include "base/str.h"

namespace millrace::log {

enum class Level { kDebug, kInfo, kWarning, kError, kOff };

void set_level(Level level);
Level level();
/// "debug", "info", "warning", "error", "off"; false when `name` is none of them.
bool parse_level(std::string_view name, Level* level);
void write(Level level, const std::string& message);

template <typename... Parts>
void debug(const Parts&... parts) {
  if (level() <= Level::kDebug) write(Level::kDebug, str(parts...));
}
template <typename... Parts>
void info(const Parts&... parts) {
  if (level() <= Level::kInfo) write(Level::kInfo, str(parts...));
}
template <typename... Parts>
void warning(const Parts&... parts) {
  if (level() <= Level::kWarning) write(Level::kWarning, str(parts...));
}

}  // namespace millrace::log
