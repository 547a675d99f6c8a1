#include "base/atomic_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

std::string temporary_name(const fs::path& path) {
  static std::atomic<int> counter{0};
  const std::string name =
      str(".", path.filename().string(), ".", getpid(), ".", counter.fetch_add(1), ".tmp");
  return (path.parent_path() / name).string();
}

// The process number inside a temporary name, or 0.
int owner(std::string_view name) {
  name.remove_suffix(4);
  const size_t counter_dot = name.rfind('.');
  if (counter_dot == std::string_view::npos || counter_dot == 0) return 0;
  const size_t pid_dot = name.rfind('.', counter_dot - 1);
  if (pid_dot == std::string_view::npos) return 0;
  int pid = 0;
  std::from_chars(name.data() + pid_dot + 1, name.data() + counter_dot, pid);
  return pid;
}

}  // namespace

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)), temporary_(temporary_name(path_)) {
  fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) fail("create");
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write(const void* data, int64_t bytes) {
  write_at(size_, data, bytes);
  size_ += bytes;
}

void AtomicFile::write_at(int64_t offset, const void* data, int64_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    // Linux writes at most 2 GiB at once.
    const auto chunk = static_cast<size_t>(std::min<int64_t>(bytes, int64_t{1} << 30));
    const ssize_t done = ::pwrite(fd_, from, chunk, offset);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) fail("write");
    from += done;
    offset += done;
    bytes -= done;
  }
}

void AtomicFile::pad_to(int64_t alignment) {
  const std::vector<char> zeros(static_cast<size_t>((alignment - size_ % alignment) % alignment));
  if (!zeros.empty()) write(zeros.data(), static_cast<int64_t>(zeros.size()));
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail("write");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("create");
  ::close(fd_);
  fd_ = -1;
  // The rename itself becomes durable with the folder; where folders cannot be synced, it is in
  // order all the same.
  std::string folder = fs::path(path_).parent_path().string();
  const int dir = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir >= 0) {
    ::fsync(dir);
    ::close(dir);
  }
}

void AtomicFile::fail(const char* doing) const {
  const int code = errno;
  const char* advice = code == ENOSPC || code == EFBIG || code == EDQUOT
                           ? "free some disk space or choose another place"
                           : "check that the folder exists and can be written";
  throw_failed(str("cannot ", doing, " the file: ", std::strerror(code)), path_, advice);
}

bool is_temporary_name(std::string_view file_name) {
  return file_name.starts_with(".") && file_name.ends_with(".tmp");
}

void remove_stale_temporaries(const std::string& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!is_temporary_name(name)) continue;
    const int pid = owner(name);
    if (pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH) fs::remove(entry.path(), error);
  }
}

}  // namespace millrace
