#include "engine/engine_cache.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>

#include <sys/stat.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "engine/engine_file.h"

namespace millrace::engine {
namespace {

namespace fs = std::filesystem;
constexpr const char* kSuffix = ".engine";

std::string default_folder() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg != '\0') {
    return (fs::path(xdg) / "millrace").string();
  }
  const char* home = std::getenv("HOME");
  return (fs::path(home != nullptr ? home : "/tmp") / ".cache" / "millrace").string();
}

}  // namespace

EngineCache::EngineCache(const std::string& folder)
    : folder_(folder.empty() ? default_folder() : folder) {}

std::string EngineCache::path(const std::string& key) const {
  return (fs::path(folder_) / (key + kSuffix)).string();
}

bool EngineCache::has(const std::string& key) const {
  std::error_code error;
  return fs::is_regular_file(path(key), error);
}

void EngineCache::touch(const std::string& key) const {
  std::error_code error;  // a read-only cache still serves
  fs::last_write_time(path(key), fs::file_time_type::clock::now(), error);
}

void EngineCache::store(const std::string& key, const Engine& engine) const {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) {
    throw_failed(str("cannot create the engine cache: ", error.message()), folder_,
                 "choose another with --cache-dir, or use --no-cache");
  }
  remove_stale_temporaries(folder_);
  write_engine(engine, path(key), nullptr);
  trim();
}

std::vector<CacheEntry> EngineCache::list() const {
  std::vector<CacheEntry> entries;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(folder_, error)) {
    if (file.path().extension() != kSuffix) continue;
    struct stat info{};
    if (::stat(file.path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    entries.push_back({file.path().string(), file.path().stem().string(), info.st_size,
                       int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec});
  }
  std::sort(entries.begin(), entries.end(), [](const CacheEntry& a, const CacheEntry& b) {
    return std::tie(a.used_ns, a.key) < std::tie(b.used_ns, b.key);
  });
  return entries;
}

int64_t EngineCache::clear() const {
  remove_stale_temporaries(folder_);
  const std::vector<CacheEntry> entries = list();
  for (const CacheEntry& entry : entries) {
    std::error_code error;
    fs::remove(entry.path, error);
    if (error) {
      throw_failed(str("cannot remove a cached engine: ", error.message()), entry.path,
                   "check the permissions of the folder");
    }
  }
  return static_cast<int64_t>(entries.size());
}

void EngineCache::trim() const {
  const std::vector<CacheEntry> entries = list();
  int64_t bytes = 0;
  for (const CacheEntry& entry : entries)
    bytes += entry.bytes;
  auto count = static_cast<int64_t>(entries.size());
  for (const CacheEntry& entry : entries) {
    if (count <= kMaxEntries && bytes <= kMaxBytes) return;
    std::error_code error;
    fs::remove(entry.path, error);
    --count;
    bytes -= entry.bytes;
  }
}

}  // namespace millrace::engine
