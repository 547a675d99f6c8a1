// Engines that `run` and its relatives made of model folders, kept by key. Bounded: the least
// recently used go first.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/plan.h"

namespace millrace::engine {

struct CacheEntry {
  std::string path;
  std::string key;
  int64_t bytes = 0;
  int64_t used_ns = 0;  // last use, since 1970
};

class EngineCache {
 public:
  static constexpr int64_t kMaxEntries = 64;
  static constexpr int64_t kMaxBytes = int64_t{2} << 30;

  /// `folder` empty: $XDG_CACHE_HOME/millrace, else ~/.cache/millrace.
  explicit EngineCache(const std::string& folder = "");

  const std::string& folder() const { return folder_; }
  /// Where the engine with this key lies or would lie.
  std::string path(const std::string& key) const;
  bool has(const std::string& key) const;
  /// Marks an entry as just used.
  void touch(const std::string& key) const;
  /// Writes an engine whose weights stay in the checkpoint and removes what is too much. Throws
  /// Error when the folder cannot be written. Two processes may store the same key: the last one
  /// wins, both files are whole.
  void store(const std::string& key, const Engine& engine) const;

  /// Oldest use first.
  std::vector<CacheEntry> list() const;
  /// Removes every entry; returns how many there were.
  int64_t clear() const;

 private:
  void trim() const;
  std::string folder_;
};

}  // namespace millrace::engine
