// Stands for the CUDA device where the program is built without it.
#if !defined(MILLRACE_CUDA)

#include "base/error.h"
#include "device/cuda/profiler_range.h"
#include "device/cuda/step_transfers.h"
#include "device/device.h"
#include "device/software.h"

namespace millrace::device {
namespace {

[[noreturn]] void refuse() {
  throw_failed(cuda_unusable(), "--device cuda",
               "use --device cpu, or build with ./dev build cuda");
}

}  // namespace

std::string cuda_unusable() {
  return "this program was built without CUDA";
}

std::string cuda_software() {
  return "";
}

std::string cublaslt_missing() {
  return cuda_unusable();
}

std::string cublaslt_version() {
  return "none";
}

std::vector<Properties> cuda_devices() {
  return {};
}

std::unique_ptr<Device> make_cuda_device(int) {
  refuse();
}

void begin_step_cuda(const Queue&, std::span<const TransferPart>, int64_t*) {
  refuse();
}

void end_step_cuda(const Queue&, std::span<const TransferPart>, int64_t*) {
  refuse();
}

void begin_profiler_range(const char*) {}
void end_profiler_range() {}

}  // namespace millrace::device

#endif
