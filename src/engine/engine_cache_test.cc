#include "engine/engine_cache.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/engine_file.h"
#include "engine/test_engine.h"

namespace millrace::engine {
namespace {

namespace fs = std::filesystem;
using std::chrono::hours;
using Names = std::vector<std::string>;

Engine named(const std::string& model) {
  Engine engine = small_engine();
  engine.manifest.model = model;
  return engine;
}

class EngineCacheTest : public ::testing::Test {
 protected:
  EngineCacheTest() : folder_(fs::path(::testing::TempDir()) / str("engine_cache_", getpid())) {
    fs::remove_all(folder_);
  }
  ~EngineCacheTest() override { fs::remove_all(folder_); }

  // A file of the cache that was used so many hours ago.
  void put(const std::string& name, int age, uintmax_t bytes = 1) const {
    fs::create_directories(folder_);
    std::ofstream(folder_ / name) << "x";
    fs::resize_file(folder_ / name, bytes);
    fs::last_write_time(folder_ / name, fs::file_time_type::clock::now() - hours(age));
  }
  Names keys() const {
    Names names;
    for (const CacheEntry& entry : cache_.list())
      names.push_back(entry.key);
    return names;
  }
  std::string model(const std::string& key) const {
    return EngineFile::open(cache_.path(key))->engine().manifest.model;
  }

  const fs::path folder_;
  const EngineCache cache_{folder_.string()};
};

TEST_F(EngineCacheTest, KeepsWhatItIsGiven) {
  EXPECT_FALSE(cache_.has("a"));
  EXPECT_TRUE(cache_.list().empty());
  cache_.store("a", named("first"));
  EXPECT_TRUE(cache_.has("a"));
  EXPECT_FALSE(cache_.has("b"));
  EXPECT_EQ(model("a"), "first");
  ASSERT_EQ(cache_.list().size(), 1U);
  const CacheEntry entry = cache_.list()[0];
  EXPECT_EQ(entry.path, (folder_ / "a.engine").string());
  EXPECT_EQ(entry.key, "a");
  EXPECT_EQ(static_cast<uintmax_t>(entry.bytes), fs::file_size(entry.path));

  // Who has the old one open keeps it.
  const auto open = EngineFile::open(cache_.path("a"));
  cache_.store("a", named("second"));
  EXPECT_EQ(model("a"), "second");
  EXPECT_NO_THROW(open->check_intact());
  EXPECT_EQ(cache_.list().size(), 1U);
}

TEST_F(EngineCacheTest, ListsByLastUse) {
  put("old.engine", 9);
  put("older.engine", 20);
  put("new.engine", 1);
  EXPECT_EQ(keys(), (Names{"older", "old", "new"}));
  const int64_t before = std::chrono::duration_cast<std::chrono::nanoseconds>(
                             std::chrono::system_clock::now().time_since_epoch())
                             .count();
  cache_.touch("older");
  EXPECT_EQ(keys(), (Names{"old", "new", "older"}));
  // The file system's clock ticks in steps.
  EXPECT_GE(cache_.list()[2].used_ns, before - 100'000'000);
  cache_.touch("nobody");
  EXPECT_FALSE(cache_.has("nobody"));
}

TEST_F(EngineCacheTest, KeepsSoManyEntriesAndDropsTheOldest) {
  for (int i = 0; i < 64; ++i)
    put(str("e", i, ".engine"), 100 + i);  // e63 is the oldest
  put("tactic_times.tsv", 1000);
  cache_.touch("e63");
  cache_.store("stored", small_engine());
  EXPECT_EQ(cache_.list().size(), 64U);
  EXPECT_FALSE(cache_.has("e62"));
  EXPECT_TRUE(cache_.has("e63"));
  EXPECT_TRUE(cache_.has("e61"));
  EXPECT_TRUE(cache_.has("stored"));
  EXPECT_TRUE(fs::exists(folder_ / "tactic_times.tsv"));
}

TEST_F(EngineCacheTest, KeepsSoManyBytesAndDropsTheOldest) {
  const uintmax_t mebibyte = 1 << 20;
  put("a.engine", 1, 900 * mebibyte);
  put("b.engine", 3, 900 * mebibyte);
  put("c.engine", 2, 900 * mebibyte);
  put("other", 9, 3000 * mebibyte);
  cache_.store("stored", small_engine());
  EXPECT_EQ(keys(), (Names{"c", "a", "stored"}));
}

TEST_F(EngineCacheTest, StoringRemovesWhatDeadProcessesLeft) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  put(str(".a.engine.", child, ".0.tmp"), 1);
  put(str(".a.engine.", getpid(), ".99.tmp"), 1);
  EXPECT_TRUE(cache_.list().empty());
  cache_.store("a", small_engine());
  EXPECT_FALSE(fs::exists(folder_ / str(".a.engine.", child, ".0.tmp")));
  EXPECT_TRUE(fs::exists(folder_ / str(".a.engine.", getpid(), ".99.tmp")));
}

TEST_F(EngineCacheTest, ClearRemovesEnginesAndNothingElse) {
  EXPECT_EQ(cache_.clear(), 0);
  put("a.engine", 1);
  put("b.engine", 2);
  put("tactic_times.tsv", 3);
  fs::create_directories(folder_ / "folder.engine");
  EXPECT_EQ(cache_.clear(), 2);
  EXPECT_TRUE(cache_.list().empty());
  EXPECT_TRUE(fs::exists(folder_ / "tactic_times.tsv"));
  EXPECT_TRUE(fs::exists(folder_ / "folder.engine"));
}

TEST_F(EngineCacheTest, AFolderThatCannotBeMadeIsAnError) {
  std::ofstream(folder_.string()) << "a file";
  for (const fs::path& folder : {folder_, folder_ / "below"}) {
    const EngineCache cache(folder.string());
    EXPECT_FALSE(cache.has("a"));
    EXPECT_TRUE(cache.list().empty());
    try {
      cache.store("a", small_engine());
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFailed);
      EXPECT_NE(std::string_view(error.what()).find(folder.string()), std::string_view::npos)
          << error.what();
    }
  }
}

TEST_F(EngineCacheTest, UnreadableEntriesAreErrorsAndCanBeReplaced) {
  cache_.store("a", small_engine());
  for (const uintmax_t size : {uintmax_t{0}, uintmax_t{50}, uintmax_t{4200}}) {
    fs::resize_file(cache_.path("a"), size);
    EXPECT_TRUE(cache_.has("a"));
    EXPECT_THROW(model("a"), Error);
    cache_.store("a", named("again"));
    EXPECT_EQ(model("a"), "again");
  }
}

// While two processes write one key over and over, a reader finds one of their engines, whole.
TEST_F(EngineCacheTest, TwoProcessesMayStoreOneKey) {
  constexpr int kRounds = 40;
  cache_.store("a", named("start"));
  std::vector<pid_t> writers;
  for (const char* name : {"first", "second"}) {
    const pid_t child = fork();
    if (child != 0) {
      writers.push_back(child);
      continue;
    }
    int status = 0;
    try {
      for (int i = 0; i < kRounds; ++i)
        cache_.store("a", named(name));
    } catch (...) {
      status = 1;
    }
    _exit(status);
  }
  int running = 2, reads = 0;
  while (running > 0) {
    const std::string found = model("a");
    EXPECT_TRUE(found == "start" || found == "first" || found == "second") << found;
    ++reads;
    for (pid_t& writer : writers) {
      int status = 0;
      if (writer == 0 || waitpid(writer, &status, WNOHANG) != writer) continue;
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
      writer = 0;
      --running;
    }
  }
  EXPECT_GT(reads, 2);
  EXPECT_NE(model("a"), "start");
  int files = 0;
  for ([[maybe_unused]] const auto& file : fs::directory_iterator(folder_))
    ++files;
  EXPECT_EQ(files, 1) << "a temporary file is left";
}

// An environment variable with another value for a while.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value == nullptr ? unsetenv(name) : setenv(name, value, 1);
  }
  ~Variable() { old_ ? setenv(name_, old_->c_str(), 1) : unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

TEST(EngineCacheFolder, FollowsTheEnvironment) {
  const Variable home("HOME", "/home/somebody");
  {
    const Variable xdg("XDG_CACHE_HOME", "/caches");
    EXPECT_EQ(EngineCache().folder(), "/caches/millrace");
    EXPECT_EQ(EngineCache("/else").folder(), "/else");
  }
  for (const char* unset : {static_cast<const char*>(nullptr), ""}) {
    const Variable xdg("XDG_CACHE_HOME", unset);
    EXPECT_EQ(EngineCache().folder(), "/home/somebody/.cache/millrace");
  }
}

}  // namespace
}  // namespace millrace::engine
