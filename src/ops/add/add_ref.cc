#include "ops/common/elementwise.h"

namespace millrace::ops {

void add_ref(const Launch& launch) {
  elementwise_ref(launch, [](float a, float b) { return a + b; });
}

}  // namespace millrace::ops
