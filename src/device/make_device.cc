#include <charconv>

#include "base/error.h"
#include "device/device.h"

namespace millrace::device {

std::vector<std::string> back_ends() {
#if defined(MILLRACE_CUDA)
  return {"cpu", "cuda"};
#else
  return {"cpu"};
#endif
}

std::unique_ptr<Device> make_device(const std::string& name, int threads) {
  if (name == "cpu" || (name == "auto" && !cuda_unusable().empty())) {
    return make_cpu_device(threads);
  }
  if (name == "auto" || name == "cuda") return make_cuda_device();
  constexpr std::string_view kPrefix = "cuda:";
  if (name.starts_with(kPrefix)) {
    int index = -1;
    const char* const end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, index);
    if (parsed.ec == std::errc() && parsed.ptr == end && index >= 0) return make_cuda_device(index);
  }
  throw_bad_input(str("unknown device '", name, "'"), "--device", "use auto, cpu, cuda or cuda:N");
}

}  // namespace millrace::device
