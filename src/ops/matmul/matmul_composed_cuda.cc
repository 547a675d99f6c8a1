#include "ops/matmul/matmul_composed_cuda.h"

#include <algorithm>

#include "ops/common/activate_cuda.h"
#include "ops/common/gate_cuda.h"
#include "ops/common/norm_limits.h"
#include "ops/common/rms_rows_cuda.h"

namespace millrace::ops {

ComposedMatmul::ComposedMatmul(const Launch& launch, const MatmulKernel& kernel)
    : launch_(launch), product_(launch), attributes_(launch.attrs<Matmul>()) {
  const Tensor& x = launch.in[0];
  if (attributes_.normed() && (kernel.norms == nullptr || !kernel.norms(launch))) {
    std::ranges::copy(launch.in.first(launch.in.size() - 1), in_.begin());
    in_[0] = placed(x.dtype, x.dim(0), x.dim(1));
    product_.in = std::span(in_).first(launch.in.size() - 1);
    attributes_.norm = "none";
  }
  if (attributes_.gated && (kernel.gates == nullptr || !kernel.gates(launch))) {
    gate_up_ = placed(launch.out[0].dtype, x.dim(0), launch.in[1].dim(0));
    product_.out = {&gate_up_, 1};
    attributes_.gated = false;
    attributes_.activation = "none";
  }
  const bool activates = attributes_.activation != "none" && !attributes_.gated;
  if (activates && !attributes_.residual && kernel.activates != nullptr &&
      !kernel.activates(launch)) {
    attributes_.activation = "none";
    activates_last_ = true;
  }
  product_.attributes = &attributes_;
  if (launch.workspace != nullptr) {
    product_.workspace = static_cast<std::byte*>(launch.workspace) + bytes_;
  }
}

/// The next intermediate value [rows, cols] in the workspace, if there is one yet.
Tensor ComposedMatmul::placed(ir::DType dtype, int64_t rows, int64_t cols) {
  auto* workspace = static_cast<std::byte*>(launch_.workspace);
  const Tensor tensor(workspace == nullptr ? nullptr : workspace + bytes_, dtype,
                      std::array{rows, cols});
  constexpr int64_t kAlignment = 256;
  bytes_ += (tensor.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  return tensor;
}

std::string ComposedMatmul::why_not(const device::Properties& device) const {
  return norms_first() ? norm_cuda_why_not(launch_, device) : "";
}

void ComposedMatmul::begin() const {
  if (!norms_first()) return;
  rms_rows_cuda(*launch_.queue, launch_.in[0], launch_.in.back(),
                {.eps = attributes_.norm_eps, .weight_offset = attributes_.norm_offset}, in_[0]);
}

void ComposedMatmul::finish() const {
  const Tensor& out = launch_.out[0];
  const ActivationKind kind = *parse_activation(launch_.attrs<Matmul>().activation);
  if (gates_last()) gate_cuda(*launch_.queue, kind, gate_up_, out);
  if (activates_last_) activate_cuda(*launch_.queue, kind, out, out);
}

}  // namespace millrace::ops
