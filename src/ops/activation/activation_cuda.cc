#include "ops/activation/activation.h"
#include "ops/common/activate_cuda.h"

namespace millrace::ops {

void activation_cuda(const Launch& launch) {
  activate_cuda(*launch.queue, *parse_activation(launch.attrs<Activation>().kind), launch.in[0],
                launch.out[0]);
}

}  // namespace millrace::ops
