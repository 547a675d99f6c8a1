#include "base/atomic_file.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

class AtomicFileTest : public ::testing::Test {
 protected:
  AtomicFileTest() : folder_(fs::path(::testing::TempDir()) / str("atomic_file_", getpid())) {
    fs::create_directories(folder_);
  }
  ~AtomicFileTest() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string content(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : fs::directory_iterator(folder_))
      result.push_back(entry.path().filename().string());
    return result;
  }

  const fs::path folder_;
};

TEST_F(AtomicFileTest, AppearsWholeAtCommit) {
  AtomicFile file(path("a"));
  file.write("0123");
  file.pad_to(8);
  EXPECT_EQ(file.size(), 8);
  file.pad_to(8);
  EXPECT_EQ(file.size(), 8);
  file.write("tail");
  file.write_at(1, "XY", 2);
  EXPECT_FALSE(fs::exists(path("a")));
  ASSERT_EQ(names().size(), 1U);
  EXPECT_TRUE(is_temporary_name(names()[0])) << names()[0];
  file.commit();
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
  EXPECT_EQ(content("a"), std::string("0XY3\0\0\0\0tail", 12));
}

TEST_F(AtomicFileTest, LeavesNothingAndKeepsTheOldFileWhenGivenUp) {
  std::ofstream(path("a")) << "old";
  {
    AtomicFile file(path("a"));
    file.write("new");
  }
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
  EXPECT_EQ(content("a"), "old");
}

TEST_F(AtomicFileTest, ReplacesAndTheLastOfTwoWins) {
  AtomicFile first(path("a")), second(path("a"));
  first.write("first");
  second.write("second");
  second.commit();
  EXPECT_EQ(content("a"), "second");
  first.commit();
  EXPECT_EQ(content("a"), "first");
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
}

TEST_F(AtomicFileTest, SaysWhyAFolderDoesNotTakeIt) {
  try {
    AtomicFile file(path("none/a"));
    ADD_FAILURE() << "made a file in no folder";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kFailed);
    EXPECT_EQ(e.what(), str("cannot create the file: No such file or directory (", path("none/a"),
                            "); check that the folder exists and can be written"));
  }
}

TEST_F(AtomicFileTest, LeavesNothingWhenItsNameIsAFolder) {
  fs::create_directories(path("a/inside"));
  {
    AtomicFile file(path("a"));
    file.write("x");
    EXPECT_THROW(file.commit(), Error);
  }
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
}

TEST_F(AtomicFileTest, AFullDiskIsAnErrorAndLeavesNothing) {
  // In a process of its own: the limit cannot be raised again.
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    int status = setrlimit(RLIMIT_FSIZE, &limit) == 0 ? 1 : 2;
    try {
      AtomicFile file(path("a"));
      file.write(std::string(10000, 'x'));
    } catch (const Error& e) {
      const bool told =
          std::string_view(e.what()).find("free some disk space") != std::string::npos;
      status = e.code() == ErrorCode::kFailed && told ? 0 : 3;
    }
    _exit(status);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(names().empty());
}

TEST_F(AtomicFileTest, RemovesOnlyWhatDeadProcessesLeft) {
  // A process that has ended and been waited for: its number is free.
  const pid_t dead = fork();
  if (dead == 0) _exit(0);
  ASSERT_EQ(waitpid(dead, nullptr, 0), dead);
  const std::string left = str(".model.engine.", dead, ".3.tmp");
  const std::vector<std::string> stay = {str(".model.engine.", getpid(), ".0.tmp"),
                                         ".tmp",
                                         ".x.tmp",
                                         ".a.b.tmp",
                                         str("model.", dead, ".0.tmp"),
                                         "engine"};
  std::ofstream(path(left)) << "x";
  for (const std::string& name : stay)
    std::ofstream(path(name)) << "x";
  remove_stale_temporaries(folder_.string());
  EXPECT_FALSE(fs::exists(path(left)));
  for (const std::string& name : stay)
    EXPECT_TRUE(fs::exists(path(name))) << name;
  EXPECT_NO_THROW(remove_stale_temporaries(path("none")));
}

}  // namespace
}  // namespace millrace
