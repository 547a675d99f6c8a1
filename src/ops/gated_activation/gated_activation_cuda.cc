#include "ops/common/gate_cuda.h"
#include "ops/gated_activation/gated_activation.h"

namespace millrace::ops {

void gated_activation_cuda(const Launch& launch) {
  gate_cuda(*launch.queue, *parse_activation(launch.attrs<GatedActivation>().kind), launch.in[0],
            launch.out[0]);
}

}  // namespace millrace::ops
