#include "base/repeated_bytes.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/error.h"

namespace millrace {
namespace {

[[noreturn]] void throw_no_memory(int64_t bytes) {
  throw_failed(str("no memory for ", format_bytes(bytes), ": ", std::strerror(errno)),
               "repeated bytes", "stop other programs, or raise the limits of this one");
}

}  // namespace

int64_t RepeatedBytes::page_bytes() {
  return sysconf(_SC_PAGESIZE);
}

RepeatedBytes::RepeatedBytes(std::span<const std::byte> bytes)
    : size_(static_cast<int64_t>(bytes.size())) {
  CHECK(size_ > 0 && size_ % page_bytes() == 0, size_, " bytes are not whole pages");
  file_ = memfd_create("millrace repeated bytes", MFD_CLOEXEC);
  if (file_ < 0) throw_no_memory(size_);
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = write(file_, bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      close(file_);
      throw_no_memory(size_);
    }
    done += static_cast<size_t>(written);
  }
}

RepeatedBytes::~RepeatedBytes() {
  close(file_);
}

std::shared_ptr<std::byte> RepeatedBytes::map(int64_t length) const {
  const auto total = static_cast<size_t>(std::max<int64_t>(length, 1));
  // Addresses first, then the pages over them.
  void* all = mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) throw_no_memory(length);
  std::shared_ptr<std::byte> mapped(static_cast<std::byte*>(all),
                                    [total](std::byte* data) { munmap(data, total); });
  for (size_t done = 0; done < total; done += static_cast<size_t>(size_)) {
    const size_t part = std::min(static_cast<size_t>(size_), total - done);
    if (mmap(mapped.get() + done, part, PROT_READ, MAP_SHARED | MAP_FIXED, file_, 0) == MAP_FAILED)
      throw_no_memory(length);
  }
  return mapped;
}

}  // namespace millrace
