// A temporary folder for tests, and the bytes of a safetensors file.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"

namespace millrace {

class TestFolder {
 public:
  TestFolder()
      : path_(std::filesystem::path(::testing::TempDir()) /
              str("millrace_", getpid(), "_", next_++)) {
    std::filesystem::create_directories(path_);
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string path() const { return path_.string(); }
  std::string path(const std::string& name) const { return (path_ / name).string(); }
  void write(const std::string& name, std::string_view text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
  }

 private:
  static inline int next_ = 0;
  std::filesystem::path path_;
};

/// Length, header and data as they are, right or wrong.
inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  std::string out;
  for (size_t i = 0, length = header.size(); i < 8; ++i, length >>= 8) {
    out += static_cast<char>(length & 255);
  }
  return out.append(header).append(data);
}

/// Runs `function` and returns the text of the Error it throws; anything else fails the test.
template <typename F>
std::string bad_input_of(const F& function) {
  try {
    function();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

}  // namespace millrace
