#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

#include "base/error.h"
#include "base/thread_pool.h"
#include "device/cpu/isa.h"
#include "device/cpu/memory_limits.h"
#include "device/device.h"

namespace millrace::device {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;

int64_t round_up(int64_t bytes, int64_t step) {
  return (bytes + step - 1) / step * step;
}

/// Small blocks come from the heap; big ones from the kernel, which gives zeroed pages on first
/// use.
class CpuMemory : public Memory {
 public:
  CpuMemory(int64_t bytes, const std::string& purpose, std::atomic<int64_t>* total)
      : size_(bytes), total_(total) {
    if (bytes >= kHugePage) {
      map();
    } else {
      const auto rounded = static_cast<size_t>(round_up(std::max<int64_t>(bytes, 1), kAlignment));
      data_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
      if (data_ != nullptr) std::memset(data_, 0, rounded);
    }
    if (data_ == nullptr) {
      throw_failed(str("the system refused ", format_bytes(bytes), " of memory"), purpose,
                   "raise the limit on address space (ulimit -v), or ask for less");
    }
    *total_ += size_;
  }
  ~CpuMemory() override {
    if (mapping_ != nullptr) {
      munmap(mapping_, mapping_size_);
    } else {
      std::free(data_);
    }
    *total_ -= size_;
  }
  CpuMemory(const CpuMemory&) = delete;
  CpuMemory& operator=(const CpuMemory&) = delete;

  std::byte* data() const override { return data_; }
  int64_t size() const override { return size_; }

 private:
  void map() {
    mapping_size_ = static_cast<size_t>(round_up(size_, kHugePage) + kHugePage);
    void* mapped = mmap(nullptr, mapping_size_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return;
    mapping_ = mapped;
    const auto address = reinterpret_cast<uintptr_t>(mapped);
    const uintptr_t skip = (kHugePage - address % kHugePage) % kHugePage;
    data_ = static_cast<std::byte*>(mapped) + skip;
    // Without huge pages, matrices of gigabytes spend their time in page walks. A wish: the kernel
    // may have none.
    madvise(data_, static_cast<size_t>(round_up(size_, kHugePage)), MADV_HUGEPAGE);
  }

  int64_t size_;
  std::atomic<int64_t>* total_;
  std::byte* data_ = nullptr;
  void* mapping_ = nullptr;
  size_t mapping_size_ = 0;
};

/// Launches have run when they return, so an event is a time.
class CpuEvent : public Event {
 public:
  void record() override { time_ = std::chrono::steady_clock::now(); }
  void wait() override {}
  double seconds_since(const Event& earlier) const override {
    return std::chrono::duration<double>(time_ - static_cast<const CpuEvent&>(earlier).time_)
        .count();
  }

 private:
  std::chrono::steady_clock::time_point time_;
};

class CpuDevice : public Device {
 public:
  CpuDevice(int threads, CpuIsa max_isa) : pool_(threads) {
    const MemoryLimits limits = memory_limits();
    const CacheSizes caches = cache_sizes();
    properties_.kind = Kind::kCpu;
    properties_.name = cpu_name();
    properties_.isa = std::min(detect_isa(), max_isa);
    properties_.threads = pool_.thread_count();
    properties_.memory_bytes = limits.total;
    properties_.l2_bytes = caches.l2;
    properties_.last_cache_bytes = caches.last;
    available_at_start_ = limits.available;
    queue_ = {.kind = Kind::kCpu, .pool = &pool_, .stream = nullptr};
  }

  const Properties& properties() const override { return properties_; }
  Queue& queue() override { return queue_; }

  std::unique_ptr<Memory> allocate(int64_t bytes, const std::string& purpose) override {
    const int64_t free = bytes < kHugePage ? bytes : free_bytes();
    if (bytes > free) {
      throw_failed(str("not enough memory: ", format_bytes(bytes), " wanted, ", format_bytes(free),
                       " left of ", format_bytes(properties_.memory_bytes)),
                   purpose, "use a smaller model, narrower weights, or lower limits");
    }
    return std::make_unique<CpuMemory>(bytes, purpose, &allocated_);
  }
  std::unique_ptr<Memory> allocate_host(int64_t bytes, const std::string& purpose) override {
    return allocate(bytes, purpose);
  }

  void copy_to_device(void* target, const void* source, int64_t bytes) override {
    std::memcpy(target, source, static_cast<size_t>(bytes));
  }
  void copy_to_host(void* target, const void* source, int64_t bytes) override {
    std::memcpy(target, source, static_cast<size_t>(bytes));
  }
  void enqueue_copy_to_host(void* target, const void* source, int64_t bytes) override {
    copy_to_host(target, source, bytes);
  }
  void synchronize() override {}
  std::unique_ptr<Event> make_event() override { return std::make_unique<CpuEvent>(); }
  std::unique_ptr<CapturedGraph> capture(FunctionRef<void()>) override { return nullptr; }
  std::unique_ptr<Hold> hold() override { return nullptr; }
  bool is_asynchronous() const override { return false; }

  /// Pages count as used only once they are touched, so what the system calls available still holds
  /// blocks given out a moment ago: those are counted here, too.
  int64_t free_bytes() const override {
    const int64_t unclaimed = available_at_start_ - allocated_.load();
    return std::max<int64_t>(0, std::min(memory_limits().available, unclaimed));
  }

 private:
  ThreadPool pool_;
  Properties properties_;
  Queue queue_;
  int64_t available_at_start_ = 0;
  std::atomic<int64_t> allocated_{0};
};

}  // namespace

std::unique_ptr<Device> make_cpu_device(int threads, CpuIsa max_isa) {
  return std::make_unique<CpuDevice>(threads, max_isa);
}

}  // namespace millrace::device
