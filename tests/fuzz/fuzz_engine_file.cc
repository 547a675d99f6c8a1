// Bytes as an engine file, as they are and with checksums made right, so that what these protect is
// reached too: it opens or is refused, and packed weights of what opens are read inside the file.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "engine/engine_file.h"
#include "runtime/weights.h"

namespace {

using millrace::engine::EngineFile;

// docs/engine_format.md has the offsets.
constexpr size_t kHeaderBytes = 120, kFileBytes = 16, kHash = 112;
constexpr std::array<size_t, 3> kSections = {24, 48, 72};

uint64_t get(const std::string& file, size_t offset) {
  uint64_t value = 0;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

void put(std::string* file, size_t offset, uint64_t value) {
  std::memcpy(file->data() + offset, &value, sizeof value);
}

std::string with_checksums(std::string file) {
  if (file.size() < kHeaderBytes) return file;
  for (const size_t section : kSections) {
    const uint64_t offset = get(file, section), bytes = get(file, section + 8);
    if (offset > file.size() || bytes > file.size() - offset) continue;
    put(&file, section + 16, millrace::hash64(std::string_view(file).substr(offset, bytes)));
  }
  put(&file, kFileBytes, file.size());
  put(&file, kHash, millrace::hash64(std::string_view(file).substr(0, kHash)));
  return file;
}

// A file without a place on a disk.
class MemoryFile {
 public:
  explicit MemoryFile(const std::string& bytes) : fd_(memfd_create("fuzz", 0)) {
    CHECK(fd_ >= 0);
    CHECK(write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

void use(const std::shared_ptr<const EngineFile>& file) {
  const millrace::engine::Engine& engine = file->engine();
  for (const millrace::engine::RegimePlan& regime : engine.regimes) {
    for (const millrace::engine::PlannedBuffer& buffer : regime.values) {
      CHECK(buffer.offset >= 0 && buffer.bytes >= 0);
      CHECK(buffer.offset <= regime.arena_bytes - buffer.bytes);
    }
  }
  // Others would have files of this machine read, or make as many weights as they like.
  if (engine.dummy_weights || !engine.files.empty()) return;
  static const auto device = millrace::device::make_cpu_device(1);
  const millrace::runtime::Weights weights(file, *device);
  for (size_t i = 0; i < engine.weights.size(); ++i) {
    const auto* bytes = static_cast<const uint8_t*>(weights.data(i));
    const auto count = static_cast<size_t>(millrace::runtime::weight_bytes(engine.weights[i]));
    millrace::hash64({reinterpret_cast<const std::byte*>(bytes), count});
  }
}

void open(const std::string& bytes) {
  const MemoryFile file(bytes);
  try {
    use(EngineFile::open(file.path()));
  } catch (const millrace::Error& error) {
    CHECK(error.code() == millrace::ErrorCode::kBadInput);
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  open(bytes);
  open(with_checksums(bytes));
  return 0;
}
