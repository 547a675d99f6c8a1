#include "base/log.h"

#include <atomic>

#define SPDLOG_HEADER_ONLY
#define FMT_HEADER_ONLY
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace millrace::log {
namespace {

std::atomic<Level> current_level{Level::kWarning};

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = spdlog::stderr_color_mt("millrace");
    made->set_pattern("millrace: %^%l%$: %v");
    made->set_level(spdlog::level::trace);
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::off;
}

}  // namespace

void set_level(Level level) {
  current_level = level;
}

Level level() {
  return current_level.load(std::memory_order_relaxed);
}

bool parse_level(std::string_view name, Level* level) {
  if (name == "debug") return *level = Level::kDebug, true;
  if (name == "info") return *level = Level::kInfo, true;
  if (name == "warning") return *level = Level::kWarning, true;
  if (name == "error") return *level = Level::kError, true;
  if (name == "off") return *level = Level::kOff, true;
  return false;
}

void write(Level level, const std::string& message) {
  if (level < log::level()) return;
  logger().log(to_spdlog(level), "{}", message);
}

}  // namespace millrace::log
