// Memory, order and time on a device; no arithmetic. CPU here, CUDA in device/cuda.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/function_ref.h"

namespace millrace {
class ThreadPool;
}

namespace millrace::device {

enum class Kind : uint8_t { kCpu, kCuda };

/// Instruction sets of x86-64 that CPU tactics use; each includes the ones before it.
enum class CpuIsa : uint8_t { kScalar, kAvx2, kAvx512, kAvx512Bf16 };
const char* isa_name(CpuIsa isa);

/// What tactics may ask about the device they would run on.
struct Properties {
  Kind kind = Kind::kCpu;
  std::string name;  // "AMD EPYC 9B14", "NVIDIA H200"
  CpuIsa isa = CpuIsa::kScalar;
  int threads = 1;           // CPU threads, or multiprocessors (SMs)
  int sm = 0;                // CUDA compute capability, 90 for 9.0
  int64_t memory_bytes = 0;  // what may be allocated at most: physical memory or the cgroup's limit
  int64_t l2_bytes = 0;      // cache of one core, or of the GPU
  int64_t last_cache_bytes = 0;  // last-level cache: what is larger is read from memory
};

/// Where launches go: in order, one after the other. A CPU queue runs them at once on its threads.
struct Queue {
  Kind kind = Kind::kCpu;
  ThreadPool* pool = nullptr;  // CPU; on other devices for work on the host
  void* stream = nullptr;      // CUDA: a cudaStream_t
};

/// A block of device memory, freed on destruction. At least 64-byte aligned, zeroed when allocated.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual std::byte* data() const = 0;
  virtual int64_t size() const = 0;
};

/// A point in the order of a queue.
class Event {
 public:
  virtual ~Event() = default;
  virtual void record() = 0;
  /// Blocks until everything enqueued before record() is done. Throws Error when a kernel failed.
  virtual void wait() = 0;
  /// Device time between two recorded events that have been reached.
  virtual double seconds_since(const Event& earlier) const = 0;
};

/// Launches recorded once, replayed with the addresses and sizes of then.
class CapturedGraph {
 public:
  virtual ~CapturedGraph() = default;
  virtual void replay() = 0;
};

/// Work enqueued after it waits until release() or destruction, at most a second.
class Hold {
 public:
  virtual ~Hold() = default;
  virtual void release() = 0;
};

/// One device. THREAD: calls on one queue come from one thread at a time.
class Device {
 public:
  virtual ~Device() = default;
  virtual const Properties& properties() const = 0;
  virtual Queue& queue() = 0;

  /// Throws Error (kFailed) with the sizes when the memory is not there; `purpose` names it ("KV
  /// pool").
  virtual std::unique_ptr<Memory> allocate(int64_t bytes, const std::string& purpose) = 0;
  /// Host memory that the device can copy from and to without a detour.
  virtual std::unique_ptr<Memory> allocate_host(int64_t bytes, const std::string& purpose) = 0;

  virtual void copy_to_device(void* target, const void* source, int64_t bytes) = 0;  // from either
  virtual void copy_to_host(void* target, const void* source, int64_t bytes) = 0;
  /// Returns at once; `target` is from allocate_host() and holds the bytes when an event recorded
  /// after this has been waited for.
  virtual void enqueue_copy_to_host(void* target, const void* source, int64_t bytes) = 0;
  virtual void synchronize() = 0;
  virtual std::unique_ptr<Event> make_event() = 0;
  /// Records what `work` enqueues, without running it. Null where launches run at once.
  virtual std::unique_ptr<CapturedGraph> capture(FunctionRef<void()> work) = 0;
  /// For measurements. Nothing may synchronize meanwhile. Null where launches run at once.
  virtual std::unique_ptr<Hold> hold() = 0;
  /// True when launches return before they have run, so that the host can work ahead.
  virtual bool is_asynchronous() const = 0;
  /// What may still be allocated now.
  virtual int64_t free_bytes() const = 0;
};

/// The CPU with this many threads (0: what affinity and cgroup limits allow). `max_isa` caps the
/// instruction set.
std::unique_ptr<Device> make_cpu_device(int threads = 0, CpuIsa max_isa = CpuIsa::kAvx512Bf16);

/// The device that `--device` names: auto (a GPU if one can be used, else the CPU), cpu, cuda,
/// cuda:N. `threads` of the CPU, 0: all. Throws Error for other names, and when it is not there.
std::unique_ptr<Device> make_device(const std::string& name, int threads = 0);

/// What --device can name in this program: "cpu", "cuda".
std::vector<std::string> back_ends();

/// Why make_cuda_device() would throw: what is missing. Empty when a GPU can be used.
std::string cuda_unusable();
/// The GPUs that this program can use, in the driver's order. Creates nothing on them.
std::vector<Properties> cuda_devices();
/// GPU `index`. Throws Error (kFailed) that says what is missing.
std::unique_ptr<Device> make_cuda_device(int index = 0);

}  // namespace millrace::device
