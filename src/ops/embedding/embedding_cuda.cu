#include <algorithm>

#include "ops/common/vector_access_cuda.cuh"
#include "ops/embedding/embedding.h"
#include "ops/embedding/prompt_rows.h"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

/// A block takes kThreads * kPack columns of one row. ids: [T], table: [V, E], out: [T, E];
/// prompts: [.., E] for ids from V on, or null.
template <int kPack, typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    embedding_kernel(const int32_t* ids, const In* table, Out* out, int64_t width, int offset,
                     const float* prompts, int64_t vocab) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kPack;
  if (column >= width) return;
  const int64_t id = ids[blockIdx.x];
  float values[kPack];
  if (prompts != nullptr && id >= vocab) {
    load_floats<kPack>(prompts + (id - vocab) * width + column, values);
  } else {
    load_floats<kPack>(table + (id + offset) * width + column, values);
  }
  store_floats<kPack>(values, out + int64_t{blockIdx.x} * width + column);
}

template <typename In, typename Out>
void run_embedding(const Launch& launch) {
  constexpr int kPack = std::min(kPackOf<In>, kPackOf<Out>);
  const int64_t rows = launch.out[0].dim(0), width = launch.out[0].dim(1);
  const auto* table = launch.in[1].as<In>();
  auto* out = launch.out[0].as<Out>();
  const auto start = [&](auto kernel, int pack) {
    const dim3 grid(static_cast<unsigned>(rows), blocks_for(width, kThreads * pack));
    device::launch_kernel("embedding_cuda", *launch.queue, grid, dim3(kThreads), 0, kernel,
                          launch.in[0].as<int32_t>(), table, out, width,
                          launch.attrs<Embedding>().offset, prompt_rows(launch),
                          launch.in[1].dim(0));
  };
  if (width % kPack == 0 && aligned_to_16(table, out)) {
    start(embedding_kernel<kPack, In, Out>, kPack);
  } else {
    start(embedding_kernel<1, In, Out>, 1);
  }
}

}  // namespace

void embedding_cuda(const Launch& launch) {
  if (launch.out[0].count() == 0) return;
  with_float_type(launch.in[1].dtype, [&]<typename In>(In) {
    with_float_type(launch.out[0].dtype,
                    [&]<typename Out>(Out) { run_embedding<In, Out>(launch); });
  });
}

}  // namespace millrace::ops
