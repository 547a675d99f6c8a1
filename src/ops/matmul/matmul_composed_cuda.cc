#include "ops/matmul/matmul_composed_cuda.h"

#include "ops/common/gate_cuda.h"

namespace millrace::ops {

ComposedMatmul::ComposedMatmul(const Launch& launch, const MatmulKernel& kernel)
    : launch_(launch), product_(launch) {
  const auto& attributes = launch.attrs<Matmul>();
  if (!attributes.gated || (kernel.gates != nullptr && kernel.gates(launch))) return;
  attributes_ = {.bias = attributes.bias, .dtype = attributes.dtype};
  gate_up_ = Tensor(launch.workspace, launch.out[0].dtype,
                    std::array{launch.in[0].dim(0), launch.in[1].dim(0)});
  constexpr int64_t kAlignment = 256;
  bytes_ = (gate_up_.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  product_.attributes = &attributes_;
  product_.out = {&gate_up_, 1};
  if (launch.workspace != nullptr) {
    product_.workspace = static_cast<std::byte*>(launch.workspace) + bytes_;
  }
}

void ComposedMatmul::finish() const {
  if (product_.out.data() != &gate_up_) return;
  gate_cuda(*launch_.queue, *parse_activation(launch_.attrs<Matmul>().activation), gate_up_,
            launch_.out[0]);
}

}  // namespace millrace::ops
