// A cluster of blocks per row, which holds the row in its shared memory. The sum of exponentials is
// one of integers (2^-40: its error stays below 2^-24 of the sum), so its order does not matter.
#include "ops/common/sampling_cluster_cuda.cuh"

namespace millrace::ops {
namespace {

/// Grid: kRowBlocks per row.
__global__ void MILLRACE_ROW_CLUSTER __launch_bounds__(kRowThreads)
    log_softmax_kernel(const float* x, float* out, RowSplit split) {
  extern __shared__ float4 kept[];
  __shared__ RowShared shared;
  device::wait_for_predecessor();
  device::let_successor_start();
  const int64_t l = blockIdx.x / kRowBlocks;
  RowCluster row(split, &shared, reinterpret_cast<float*>(kept));
  const uint64_t best = row.load(x + l * split.vocab, 1, true);
  const float max = float_of_key(key_of_ranked(best));
  const bool has_none = key_of_ranked(best) == kNanKey || isinf(max);
  const uint64_t units =
      row.sum([&](float value, int) { return weight_units(sampling_exp(value - max)); });
  const double lse = max + log(ldexp(static_cast<double>(units), -kWeightBits));
  float* to = out + l * split.vocab;
  for (int i = row.lane(); i < row.count(); i += kWarp) {
    to[row.token(i)] =
        has_none ? __int_as_float(0x7fc00000) : static_cast<float>(row.value(i) - lse);
  }
}

}  // namespace

void log_softmax_cuda(const Launch& launch) {
  const int64_t rows = launch.in[0].dim(0);
  if (rows == 0) return;
  RowSplit split(launch.in[0].dim(1));
  split.restrict_to(launch.in[0].data);
  [[maybe_unused]] static const bool is_allowed =
      device::allow_shared("log_softmax_cuda", log_softmax_kernel, kKeptBytes);
  device::launch_kernel("log_softmax_cuda", *launch.queue,
                        dim3(static_cast<unsigned>(rows * row_blocks())), dim3(kRowThreads),
                        split.shared_bytes(), log_softmax_kernel, launch.in[0].as<const float>(),
                        launch.out[0].as<float>(), split);
}

}  // namespace millrace::ops
