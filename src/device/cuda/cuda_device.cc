#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <iterator>
#include <mutex>

#include <cuda_runtime_api.h>

#include "base/error.h"
#include "base/thread_pool.h"
#include "device/cuda/check_cuda.h"
#include "device/cuda/cublaslt.h"
#include "device/device.h"
#include "device/named_range.h"
#include "device/software.h"

namespace millrace::device {

void check_cuda(cudaError_t status, const char* what, const std::string& where) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // errors that do not stick must not be reported again elsewhere
  const std::string operation = current_range();
  const char* separator = where.empty() || operation.empty() ? "" : ", ";
  throw_failed(str("CUDA: ", what, " failed: ", cudaGetErrorString(status), " (",
                   cudaGetErrorName(status), ")"),
               str(operation, separator, where),
               "check the GPU with nvidia-smi; report it if it happens again");
}

namespace {

/// For what is told only when the host waits: which of the kernels before failed is not known then.
void check_finished(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();
  throw_failed(str("CUDA: ", what, " failed: ", cudaGetErrorString(status), " (",
                   cudaGetErrorName(status), ")"),
               current_range(),
               "run it again with CUDA_LAUNCH_BLOCKING=1 to learn which, and report it");
}

class CudaMemory : public Memory {
 public:
  CudaMemory(int64_t bytes, const std::string& purpose, bool host) : size_(bytes), host_(host) {
    const auto wanted = static_cast<size_t>(std::max<int64_t>(bytes, 64));
    const cudaError_t status = host ? cudaMallocHost(&data_, wanted) : cudaMalloc(&data_, wanted);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      size_t free = 0, total = 0;
      (void)cudaMemGetInfo(&free, &total);
      throw_failed(str(host ? "no pinned host memory left for " : "no GPU memory left for ",
                       format_bytes(bytes), "; ", format_bytes(static_cast<int64_t>(free)), " of ",
                       format_bytes(static_cast<int64_t>(total)), " on the GPU are free"),
                   purpose, "ask for a shorter context or fewer sequences, or stop other programs");
    }
    check_cuda(status, host ? "cudaMallocHost" : "cudaMalloc", purpose);
    if (host) {
      std::memset(data_, 0, wanted);
    } else {
      check_cuda(cudaMemset(data_, 0, wanted), "cudaMemset", purpose);
    }
  }
  ~CudaMemory() override {
    // At exit or after a failed kernel these may fail as well; there is nobody to tell.
    if (host_) {
      (void)cudaFreeHost(data_);
    } else {
      (void)cudaFree(data_);
    }
  }
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  std::byte* data() const override { return static_cast<std::byte*>(data_); }
  int64_t size() const override { return size_; }

 private:
  void* data_ = nullptr;
  int64_t size_;
  bool host_;
};

class CudaEvent : public Event {
 public:
  explicit CudaEvent(cudaStream_t stream) : stream_(stream) {
    check_cuda(cudaEventCreate(&event_), "cudaEventCreate");
  }
  ~CudaEvent() override { (void)cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  void record() override { check_cuda(cudaEventRecord(event_, stream_), "cudaEventRecord"); }
  void wait() override { check_finished(cudaEventSynchronize(event_), "a kernel of this step"); }
  double seconds_since(const Event& earlier) const override {
    float milliseconds = 0;
    check_cuda(
        cudaEventElapsedTime(&milliseconds, static_cast<const CudaEvent&>(earlier).event_, event_),
        "cudaEventElapsedTime");
    return milliseconds * 1e-3;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t event_ = nullptr;
};

class CudaGraph : public CapturedGraph {
 public:
  CudaGraph(cudaStream_t stream, FunctionRef<void()> work) : stream_(stream) {
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      (void)cudaStreamEndCapture(stream, &graph);
      if (graph != nullptr) (void)cudaGraphDestroy(graph);
      throw;
    }
    check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    const cudaError_t status = cudaGraphInstantiate(&instance_, graph, 0);
    (void)cudaGraphDestroy(graph);
    check_cuda(status, "cudaGraphInstantiate");
  }
  ~CudaGraph() override { (void)cudaGraphExecDestroy(instance_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  void replay() override { check_cuda(cudaGraphLaunch(instance_, stream_), "cudaGraphLaunch"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t instance_ = nullptr;
};

Properties read_properties(int index) {
  cudaDeviceProp prop{};
  check_cuda(cudaGetDeviceProperties(&prop, index), "cudaGetDeviceProperties", str("GPU ", index));
  Properties properties;
  properties.kind = Kind::kCuda;
  properties.name = prop.name;
  properties.threads = prop.multiProcessorCount;
  properties.sm = prop.major * 10 + prop.minor;
  properties.memory_bytes = static_cast<int64_t>(prop.totalGlobalMem);
  properties.l2_bytes = prop.l2CacheSize;
  properties.last_cache_bytes = prop.l2CacheSize;
  return properties;
}

class CudaHold : public Hold {
 public:
  explicit CudaHold(cudaStream_t stream) {
    auto share = std::make_unique<std::shared_ptr<Gate>>(gate_);
    check_cuda(cudaLaunchHostFunc(stream, wait, share.get()), "cudaLaunchHostFunc");
    (void)share.release();  // wait() frees it
  }
  ~CudaHold() override { release(); }
  CudaHold(const CudaHold&) = delete;
  CudaHold& operator=(const CudaHold&) = delete;

  void release() override {
    const std::scoped_lock lock(gate_->mutex);
    gate_->open = true;
    gate_->changed.notify_all();
  }

 private:
  // The driver's queue takes some thousand entries; the host then waits for room in it, for ever if
  // this held on. Launches of a step take milliseconds.
  static constexpr std::chrono::seconds kLongest{1};

  struct Gate {
    std::mutex mutex;
    std::condition_variable changed;
    bool open = false;
  };
  // On a thread of the driver, perhaps after this object is gone: it owns a share of the gate.
  static void wait(void* gate) {
    const std::unique_ptr<std::shared_ptr<Gate>> share(static_cast<std::shared_ptr<Gate>*>(gate));
    std::unique_lock lock((*share)->mutex);
    (*share)->changed.wait_for(lock, kLongest, [&] { return (*share)->open; });
  }

  std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
};

class CudaDevice : public Device {
 public:
  explicit CudaDevice(int index) : properties_(read_properties(index)), pool_(0) {
    check_cuda(cudaSetDevice(index), "cudaSetDevice", str("GPU ", index));
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    queue_ = {.kind = Kind::kCuda, .pool = &pool_, .stream = stream_};
  }
  ~CudaDevice() override { (void)cudaStreamDestroy(stream_); }
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  const Properties& properties() const override { return properties_; }
  Queue& queue() override { return queue_; }

  std::unique_ptr<Memory> allocate(int64_t bytes, const std::string& purpose) override {
    auto memory = std::make_unique<CudaMemory>(bytes, purpose, false);
    // The zeros were written on another stream.
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return memory;
  }
  std::unique_ptr<Memory> allocate_host(int64_t bytes, const std::string& purpose) override {
    return std::make_unique<CudaMemory>(bytes, purpose, true);
  }
  void copy_to_device(void* target, const void* source, int64_t bytes) override {
    check_cuda(
        cudaMemcpyAsync(target, source, static_cast<size_t>(bytes), cudaMemcpyDefault, stream_),
        "copy to the GPU");
  }
  void copy_to_host(void* target, const void* source, int64_t bytes) override {
    enqueue_copy_to_host(target, source, bytes);
    synchronize();
  }
  void enqueue_copy_to_host(void* target, const void* source, int64_t bytes) override {
    check_cuda(cudaMemcpyAsync(target, source, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost,
                               stream_),
               "copy from the GPU");
  }
  void synchronize() override {
    check_finished(cudaStreamSynchronize(stream_), "a kernel before this point");
  }
  std::unique_ptr<Event> make_event() override { return std::make_unique<CudaEvent>(stream_); }
  std::unique_ptr<CapturedGraph> capture(FunctionRef<void()> work) override {
    return std::make_unique<CudaGraph>(stream_, work);
  }
  std::unique_ptr<Hold> hold() override { return std::make_unique<CudaHold>(stream_); }
  bool is_asynchronous() const override { return true; }
  int64_t free_bytes() const override {
    size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<int64_t>(free);
  }

 private:
  Properties properties_;
  ThreadPool pool_;  // host work beside the GPU: reading weights
  cudaStream_t stream_ = nullptr;
  Queue queue_;
};

// What the kernels were compiled for (cmake/cuda.cmake): code that runs on this compute capability
// and on later ones of the same major number; PTX, which drivers compile for it and all later ones.
constexpr int kCode[] = {MILLRACE_CUDA_CODE};
constexpr int kPtx = MILLRACE_CUDA_PTX;  // 0: none

bool has_code_for(int sm) {
  const bool binary = std::any_of(std::begin(kCode), std::end(kCode), [&](int code) {
    return code / 10 == sm / 10 && code % 10 <= sm % 10;
  });
  return binary || (kPtx > 0 && kPtx <= sm);
}

std::string capability(int sm) {
  return str(sm / 10, ".", sm % 10);
}

// Why no GPU can be used, whichever it is. Empty when there are some.
std::string driver_unusable(int* count) {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return "there is no NVIDIA driver here";
  }
  const cudaError_t status = cudaGetDeviceCount(count);
  (void)cudaGetLastError();
  if (status == cudaErrorInsufficientDriver) {
    return str("the NVIDIA driver speaks CUDA ", driver / 1000, ".", driver % 1000 / 10,
               ", this program needs ", CUDART_VERSION / 1000, ".", CUDART_VERSION % 1000 / 10);
  }
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return *count == 0 ? "there is no GPU here" : "";
}

std::string gpu_unusable(int index) {
  cudaDeviceProp prop{};
  if (cudaGetDeviceProperties(&prop, index) != cudaSuccess) {
    (void)cudaGetLastError();
    return str("GPU ", index, " does not answer");
  }
  const int sm = prop.major * 10 + prop.minor;
  if (!has_code_for(sm)) {
    std::string compiled;
    for (const int code : kCode)
      compiled += (compiled.empty() ? "" : ", ") + capability(code);
    return str(prop.name, " has compute capability ", capability(sm),
               ", this program was compiled for ", compiled, kPtx > 0 ? " and later" : "");
  }
  return "";
}

}  // namespace

std::string cuda_unusable() {
  int count = 0;
  const std::string reason = driver_unusable(&count);
  return reason.empty() ? gpu_unusable(0) : reason;
}

std::string cuda_software() {
  int driver = 0;
  const bool known = cudaDriverGetVersion(&driver) == cudaSuccess && driver != 0;
  return str("driver ", known ? str(driver) : "none", ", cuBLASLt ", cublaslt_version());
}

std::vector<Properties> cuda_devices() {
  std::vector<Properties> found;
  int count = 0;
  if (!driver_unusable(&count).empty()) return found;
  for (int i = 0; i < count; ++i) {
    if (gpu_unusable(i).empty()) found.push_back(read_properties(i));
  }
  return found;
}

std::unique_ptr<Device> make_cuda_device(int index) {
  int count = 0;
  std::string reason = driver_unusable(&count);
  if (reason.empty() && index >= count) {
    throw_bad_input(str("there is no GPU ", index, ", only ", count), "--device",
                    "count from 0, or use --device cuda");
  }
  if (reason.empty()) reason = gpu_unusable(index);
  if (!reason.empty()) throw_failed(reason, str("--device cuda:", index), "use --device cpu");
  return std::make_unique<CudaDevice>(index);
}

}  // namespace millrace::device
