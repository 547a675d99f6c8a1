#include "base/mapped_file.h"

#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

class MappedFileTest : public ::testing::Test {
 protected:
  MappedFileTest() : folder_(fs::path(::testing::TempDir()) / str("mapped_file_", getpid())) {
    fs::create_directories(folder_);
  }
  ~MappedFileTest() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string write(const std::string& name, size_t size, char fill = 'x') const {
    std::ofstream(path(name), std::ios::binary) << std::string(size, fill);
    return path(name);
  }

 private:
  fs::path folder_;
};

int64_t sum(const MappedFile& file) {
  int64_t total = 0;
  for (const std::byte b : file.bytes())
    total += static_cast<int64_t>(b);
  return total;
}

void expect_bad_input(const std::string& path, const std::string& message) {
  try {
    MappedFile::open(path);
    ADD_FAILURE() << path << " was mapped";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput);
    EXPECT_EQ(e.message(), message);
    EXPECT_EQ(e.where(), path);
  }
}

TEST_F(MappedFileTest, ShowsTheBytesOfTheFile) {
  std::ofstream(path("a"), std::ios::binary) << "millrace";
  MappedFile file = MappedFile::open(path("a"));
  ASSERT_EQ(file.size(), 8);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.data()), 8), "millrace");
  struct stat status = {};
  ASSERT_EQ(stat(path("a").c_str(), &status), 0);
  EXPECT_EQ(file.mtime_ns() / 1'000'000'000, status.st_mtim.tv_sec);
  EXPECT_EQ(file.mtime_ns() % 1'000'000'000, status.st_mtim.tv_nsec);
  fs::remove(path("a"));  // the mapping keeps the bytes
  const MappedFile moved = std::move(file);
  EXPECT_EQ(moved.bytes()[7], std::byte{'e'});
  EXPECT_FALSE(moved.damaged());
  moved.check_intact();
}

TEST_F(MappedFileTest, FollowsLinks) {
  write("blob", 3);
  fs::create_symlink("blob", path("link"));
  EXPECT_EQ(MappedFile::open(path("link")).size(), 3);
  fs::create_symlink("gone", path("broken"));
  expect_bad_input(path("broken"), "cannot open the file: No such file or directory");
}

TEST_F(MappedFileTest, RefusesEverythingButFullRegularFiles) {
  expect_bad_input(path("absent"), "cannot open the file: No such file or directory");
  expect_bad_input(path(""), "not a regular file but a folder");
  expect_bad_input("/dev/zero", "not a regular file but a device");
  expect_bad_input(write("empty", 0), "the file is empty");
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  expect_bad_input(path("pipe"), "not a regular file but a pipe");
}

TEST_F(MappedFileTest, HintsAreClampedToTheFile) {
  const MappedFile file = MappedFile::open(write("a", 10000, '\1'));
  file.will_need(-5, 1 << 30);
  file.sequential(5000, 100);
  file.not_needed(0, INT64_MAX);
  file.will_need(20000, 5);
  EXPECT_EQ(sum(file), 10000);
}

TEST_F(MappedFileTest, TruncationWhileMappedIsSeenAndSurvived) {
  constexpr size_t kSize = 1 << 20;
  const MappedFile file = MappedFile::open(write("a", kSize, '\1'));
  const MappedFile other = MappedFile::open(write("b", kSize, '\1'));
  fs::resize_file(file.path(), kSize / 2);
  EXPECT_FALSE(file.damaged());  // nothing has touched the lost part
  EXPECT_EQ(sum(file), static_cast<int64_t>(kSize / 2));
  EXPECT_TRUE(file.damaged());
  EXPECT_EQ(sum(other), static_cast<int64_t>(kSize));
  EXPECT_FALSE(other.damaged());
  try {
    file.check_intact();
    ADD_FAILURE() << "the damage went unseen";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kFailed);
    EXPECT_NE(std::string(e.what()).find(file.path()), std::string::npos);
  }
}

TEST_F(MappedFileTest, TheFlagBelongsToTheMappingAndNotToItsSlot) {
  const std::string name = write("a", 8192);
  {
    const MappedFile file = MappedFile::open(name);
    fs::resize_file(name, 1);
    EXPECT_EQ(file.bytes()[8000], std::byte{0});
    EXPECT_TRUE(file.damaged());
  }
  write("a", 8192);
  const MappedFile again = MappedFile::open(name);
  EXPECT_FALSE(again.damaged());
  EXPECT_EQ(again.bytes()[8000], std::byte{'x'});
}

TEST_F(MappedFileTest, ManyThreadsReadATruncatedFile) {
  constexpr int kThreads = 8;
  const MappedFile file = MappedFile::open(write("a", 1 << 20, '\1'));
  fs::resize_file(file.path(), 4096);
  std::vector<int64_t> sums(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] { sums[static_cast<size_t>(i)] = sum(file); });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), int64_t{0}), kThreads * 4096);
  EXPECT_TRUE(file.damaged());
}

/// Touches a page that is not there, in a mapping made by hand beside a registered one of the same
/// file.
void fault_elsewhere(const std::string& path) {
  std::ofstream(path, std::ios::binary) << std::string(8192, 'x');
  const MappedFile registered = MappedFile::open(path);
  const int fd = ::open(path.c_str(), O_RDONLY);
  const void* foreign = mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE, fd, 0);
  ::close(fd);
  fs::resize_file(path, 0);
  const volatile char byte = static_cast<const volatile char*>(foreign)[5000];
  _exit(byte);  // not reached
}

using MappedFileDeathTest = MappedFileTest;

TEST_F(MappedFileDeathTest, FaultsElsewhereGoToThePreviousHandler) {
  GTEST_FLAG_SET(death_test_style,
                 "threadsafe");  // a new process: the handler is not yet installed
  const std::string name = path("a");
  EXPECT_EXIT(
      {
        signal(SIGBUS, [](int) { _exit(77); });
        fault_elsewhere(name);
      },
      ::testing::ExitedWithCode(77), "");
}

TEST_F(MappedFileDeathTest, FaultsElsewhereEndTheProcessWithoutOne) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string name = path("a");
  EXPECT_EXIT(
      {
        signal(SIGBUS, SIG_DFL);
        fault_elsewhere(name);
      },
      ::testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace millrace
