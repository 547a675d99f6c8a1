#include "base/mapped_file.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace millrace {
namespace {

constexpr int kMaxMappings = 4096;

/// A live mapping as the signal handler sees it. `begin` is written last and cleared first.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> damaged{false};
};

std::array<Slot, kMaxMappings> slots;
std::atomic<int> slots_in_use_end{0};  // slots from here on have never been used
std::mutex slots_mutex;                // between mappers; the handler takes no lock
uintptr_t page_size = 0;
struct sigaction previous_action;

static_assert(std::atomic<uintptr_t>::is_always_lock_free &&
              std::atomic<bool>::is_always_lock_free);

void call_previous(int signal, siginfo_t* details, void* machine_state) {
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, details, machine_state);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {
    // The instruction faults again on return and ends the process in the default way.
    ::signal(signal, SIG_DFL);
    if (details->si_code <= 0) raise(signal);  // sent by a process: nothing will fault again
  }
}

void on_sigbus(int signal, siginfo_t* details, void* machine_state) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(details->si_addr);
  const int count = slots_in_use_end.load(std::memory_order_acquire);
  for (int i = 0; details->si_code > 0 && i < count; ++i) {
    Slot& slot = slots[static_cast<size_t>(i)];
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    const uintptr_t end = slot.end.load(std::memory_order_relaxed);
    if (begin == 0 || address < begin || address >= end) continue;
    slot.damaged.store(true, std::memory_order_release);
    // To the end and not one page: what is after a truncation is gone as well, page by page would
    // take for ever.
    auto* page = static_cast<std::byte*>(details->si_addr) - (address & (page_size - 1));
    if (mmap(page, end - reinterpret_cast<uintptr_t>(page), PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
      break;
    }
    errno = saved_errno;
    return;
  }
  errno = saved_errno;
  call_previous(signal, details, machine_state);
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action = {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, nullptr, &previous_action);  // known before the handler can run
    sigaction(SIGBUS, &action, nullptr);
  });
}

/// The slot taken, or -1 when all are.
int take_slot(const void* data, int64_t size) {
  const std::lock_guard lock(slots_mutex);
  for (int i = 0; i < kMaxMappings; ++i) {
    Slot& slot = slots[static_cast<size_t>(i)];
    if (slot.begin.load(std::memory_order_relaxed) != 0) continue;
    const auto begin = reinterpret_cast<uintptr_t>(data);
    slot.damaged.store(false, std::memory_order_relaxed);
    slot.end.store(begin + static_cast<uintptr_t>(size), std::memory_order_relaxed);
    slot.begin.store(begin, std::memory_order_release);
    if (i >= slots_in_use_end.load(std::memory_order_relaxed)) {
      slots_in_use_end.store(i + 1, std::memory_order_release);
    }
    return i;
  }
  return -1;
}

/// Closes a file at the end of a scope.
struct FileDescriptor {
  int fd;
  ~FileDescriptor() {
    if (fd >= 0) close(fd);
  }
};

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

MappedFile MappedFile::open(const std::string& path) {
  install_handler();
  // Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
  const FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
  if (file.fd < 0) {
    const bool theirs = errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == ELOOP ||
                        errno == ENAMETOOLONG || errno == ENXIO;
    const std::string message = str("cannot open the file: ", std::strerror(errno));
    theirs ? throw_bad_input(message, path) : throw_failed(message, path);
  }
  struct stat status = {};
  if (fstat(file.fd, &status) != 0) {
    throw_failed(str("cannot read the size of the file: ", std::strerror(errno)), path);
  }
  if (!S_ISREG(status.st_mode)) {
    throw_bad_input(str("not a regular file but ", kind_of(status.st_mode)), path);
  }
  if (status.st_size == 0) throw_bad_input("the file is empty", path, "give a whole one");

  void* data =
      mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) throw_failed(str("cannot map the file: ", std::strerror(errno)), path);
  MappedFile mapped;
  mapped.path_ = path;
  mapped.data_ = static_cast<const std::byte*>(data);
  mapped.size_ = status.st_size;
  mapped.mtime_ns_ = int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  mapped.slot_ = take_slot(data, status.st_size);
  if (mapped.slot_ < 0) {
    throw_failed(str("more than ", kMaxMappings, " files are mapped at once"), path);
  }
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept {
  *this = std::move(other);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this == &other) return *this;
  unmap();
  path_ = std::move(other.path_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  mtime_ns_ = other.mtime_ns_;
  slot_ = std::exchange(other.slot_, -1);
  return *this;
}

MappedFile::~MappedFile() {
  unmap();
}

void MappedFile::unmap() noexcept {
  if (data_ == nullptr) return;
  if (slot_ >= 0) slots[static_cast<size_t>(slot_)].begin.store(0, std::memory_order_release);
  munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
  data_ = nullptr;
}

bool MappedFile::damaged() const {
  return slot_ >= 0 && slots[static_cast<size_t>(slot_)].damaged.load(std::memory_order_acquire);
}

void MappedFile::check_intact() const {
  if (damaged()) {
    throw_failed("the file was cut short, or could not be read, while it was in use", path_,
                 "restore the file and start again");
  }
}

void MappedFile::will_need(int64_t offset, int64_t count) const {
  advise(offset, count, MADV_WILLNEED);
}

void MappedFile::sequential(int64_t offset, int64_t count) const {
  advise(offset, count, MADV_SEQUENTIAL);
}

void MappedFile::not_needed(int64_t offset, int64_t count) const {
  advise(offset, count, MADV_DONTNEED);
}

void MappedFile::advise(int64_t offset, int64_t count, int advice) const {
  const int64_t begin = std::clamp<int64_t>(offset, 0, size_);
  const int64_t end = begin + std::clamp<int64_t>(count, 0, size_ - begin);
  const int64_t first_page =
      begin / static_cast<int64_t>(page_size) * static_cast<int64_t>(page_size);
  if (begin == end) return;
  madvise(const_cast<std::byte*>(data_) + first_page, static_cast<size_t>(end - first_page),
          advice);
}

}  // namespace millrace
