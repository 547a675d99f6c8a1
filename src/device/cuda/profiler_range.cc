#include "device/cuda/profiler_range.h"

// The toolkit has the header, and so has the package nvidia-nvtx. Without it timelines have no
// ranges.
#if __has_include(<nvtx3/nvToolsExt.h>)

#include <nvtx3/nvToolsExt.h>

namespace millrace::device {
namespace {

nvtxDomainHandle_t domain() {
  static nvtxDomainHandle_t made = nvtxDomainCreateA("millrace");
  return made;
}

}  // namespace

void begin_profiler_range(const char* name) {
  nvtxEventAttributes_t event{};
  event.version = NVTX_VERSION;
  event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  event.messageType = NVTX_MESSAGE_TYPE_ASCII;
  event.message.ascii = name;
  nvtxDomainRangePushEx(domain(), &event);
}

void end_profiler_range() {
  nvtxDomainRangePop(domain());
}

}  // namespace millrace::device

#else

namespace millrace::device {

void begin_profiler_range(const char*) {}
void end_profiler_range() {}

}  // namespace millrace::device

#endif
