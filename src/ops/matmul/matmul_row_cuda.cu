// One row of x (a token): the product that a single request waits for. A warp takes whole rows of
// the weight, one after the other, and has the loads of two pieces of 1024 elements under way, also
// while the kernel before still runs. x lies in shared memory.
//
// A multiprocessor holds one block, and half of its registers stay free: the small kernels that
// follow, and this kernel's next launch behind them, are there before this one has ended.
#include <algorithm>

#include "ops/common/shared_memory.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"
#include "ops/matmul/matmul_rows_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr const char* kName = "matmul_row_cuda";
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kLoads = 4;                // of 16 bytes, in a piece, for each lane
constexpr int kPiece = kLoads * kWarp;   // packs of 8 elements
constexpr int kPack = 8;                 // elements in 16 bytes
constexpr int kSharedBytes = 116 << 10;  // more than half: one block on a multiprocessor
constexpr int64_t kMaxDepth = kSharedBytes / 2 - kPiece * kPack;

/// Sum of products of 8 elements, even and odd ones apart.
template <typename T>
__device__ void add_products(const uint4& weight, const uint4& x, float (&sums)[2]) {
  const uint32_t w_words[4] = {weight.x, weight.y, weight.z, weight.w};
  const uint32_t x_words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sums[0] = fmaf(bits_to_float(w_words[i] & 0xffffU, kDTypeOf<T>),
                   bits_to_float(x_words[i] & 0xffffU, kDTypeOf<T>), sums[0]);
    sums[1] = fmaf(bits_to_float(w_words[i] >> 16, kDTypeOf<T>),
                   bits_to_float(x_words[i] >> 16, kDTypeOf<T>), sums[1]);
  }
}

/// `pieces`: of a row of the weight, the last one filled up with zeros.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    matmul_row_kernel(const __grid_constant__ MatmulJob job, int pieces) {
  extern __shared__ __align__(16) uint4 x_shared[];  // [pieces * kPiece]
  device::let_successor_start();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int packs = static_cast<int>(job.depth) / kPack;
  // Rows go to blocks first, then to warps, so that every block reads the same number of bytes.
  const int64_t first_row = int64_t{warp} * gridDim.x + blockIdx.x;
  const int64_t row_step = int64_t{kWarps} * gridDim.x;
  uint4 even[kLoads], odd[kLoads];
  int64_t next_row = first_row;
  int next_piece = 0;

  const auto fetch = [&](uint4(&to)[kLoads]) {
    if (next_row >= job.cols) return;
    const uint4* row = static_cast<const uint4*>(job.weight) + next_row * packs;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int pack = next_piece * kPiece + i * kWarp + lane;
      to[i] = uint4{};
      if (pack < packs) to[i] = load_streamed(row + pack);
    }
    if (++next_piece < pieces) return;
    next_piece = 0;
    next_row += row_step;
  };
  fetch(even);
  fetch(odd);
  device::wait_for_predecessor();
  for (int i = static_cast<int>(threadIdx.x); i < pieces * kPiece; i += kThreads)
    x_shared[i] = i < packs ? __ldcg(static_cast<const uint4*>(job.x) + i) : uint4{};
  __syncthreads();

  float sums[2] = {};
  EpilogueBits bits;
  int64_t row = first_row;
  int piece = 0;
  const auto advance = [&](uint4(&weight)[kLoads]) {
    if (piece == 0 && lane == 0) bits = load_epilogue(job, 0, row);
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
      add_products<T>(weight[i], x_shared[piece * kPiece + i * kWarp + lane], sums);
    fetch(weight);
    if (++piece < pieces) return;
    const float sum = warp_sum(sums[0] + sums[1]);
    if (lane == 0) store_out(job, 0, row, finish(job, bits, sum));
    sums[0] = sums[1] = 0;
    piece = 0;
    row += row_step;
  };
  while (row < job.cols) {
    advance(even);
    if (row < job.cols) advance(odd);
  }
}

}  // namespace

std::string matmul_row_cuda_why_not(const Launch& launch, const device::Properties& device) {
  if (launch.in[0].dim(0) > 1) return "more than one row";
  if (std::string reason = why_no_shared(kSharedBytes, device); !reason.empty()) return reason;
  if (launch.in[1].dim(1) > kMaxDepth) return "a row of x is too long for shared memory";
  return mma_cuda_why_not(launch);
}

void matmul_row_cuda(const Launch& launch) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) {
    static const bool allowed = device::allow_shared(kName, matmul_row_kernel<T>, kSharedBytes);
    CHECK(allowed);
    const auto blocks =
        std::min<int64_t>(device::multiprocessors(), (job.cols + kWarps - 1) / kWarps);
    const int64_t pieces = (job.depth + kPiece * kPack - 1) / (kPiece * kPack);
    device::launch_kernel(kName, *launch.queue, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
                          kSharedBytes, matmul_row_kernel<T>, job, static_cast<int>(pieces));
  });
}

}  // namespace millrace::ops
