// Up to 4 rows at the speed of memory, beside other kernels: this one takes half of a
// multiprocessor, so that its blocks are there, and fetch the weight, while the kernel before it
// still runs. One block a multiprocessor, and equal shares: two on one would take twice as long.
//
// A warp takes two weight rows (neighbours, or the gate's and up's of an output), and 512
// neighbouring bytes of each at once: memory is fastest so. Lanes hold 8 elements of K each. Tensor
// cores want those of one row from four lanes; here every group of four lanes gives the operands'
// rows of its own part of K, of weight and of x alike, and what counts is the diagonal of the 8 x 8
// product, the sums of eight parts of K. The order of a sum follows from K alone.
//
// Where x is normed first, every block does it for itself, in shared memory: that takes less time
// than a kernel between two products.
#include <algorithm>
#include <limits>

#include "base/str.h"
#include "ops/common/shared_memory.h"
#include "ops/common/tensor_core_cuda.cuh"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr const char* kName = "matmul_gemv_cuda";
constexpr int kMaxTokens = 4;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kFit = 2;                  // blocks that a multiprocessor has registers for
constexpr int kRows = 2;                 // of the weight, that a warp takes at once
constexpr int kPieces = 4;               // 16-byte loads of a lane in each of them
constexpr int kPiece = kWarp * 8;        // elements
constexpr int kStep = kPieces * kPiece;  // elements of K that a warp takes at once
constexpr int kLoads = kRows * kPieces;
/// Steps of a warp that wait in the second-level cache, behind the two in its registers, until x is
/// there: 32 KiB a block. More delays x.
constexpr int kStepsAhead = 1;
constexpr int kMaxShared = 224 << 10;
/// A block takes as much at least: there is no room for two on one multiprocessor, but for one
/// beside a block of attention_generation_mma_cuda.
constexpr int kLeastShared = 116 << 10;

/// 16 bytes of a constant that are read once, or zeros.
__device__ inline uint4 load_streamed_if(const void* from, bool inside) {
  uint4 v;
  asm volatile(
      "{\n"
      ".reg .pred inside;\n"
      "setp.ne.u32 inside, %5, 0;\n"
      "mov.b32 %0, 0;\n"
      "mov.b32 %1, 0;\n"
      "mov.b32 %2, 0;\n"
      "mov.b32 %3, 0;\n"
      "@inside ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
      "}\n"
      : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
      : "l"(from), "r"(static_cast<unsigned>(inside)));
  return v;
}

/// Outputs of a row that a pair of weight rows makes.
template <bool kGated>
constexpr int kOutsOfPair = kGated ? 1 : kRows;

template <bool kGated>
__host__ __device__ int64_t pairs_of(const MatmulJob& job) {
  return (job.cols + kOutsOfPair<kGated> - 1) / kOutsOfPair<kGated>;
}

/// The pairs of weight rows of this warp: blocks get every gridDim.x-th one, their warps every
/// kWarps-th one of those. first_row: of the first pair; its second row is second_row further.
template <bool kGated>
struct GemvShare {
  int64_t first_row, row_step, second_row;
  int pairs;

  __device__ explicit GemvShare(const MatmulJob& job) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int64_t first = int64_t{warp} * gridDim.x + blockIdx.x;
    const int64_t step = int64_t{kWarps} * gridDim.x;
    const int64_t total = pairs_of<kGated>(job);
    pairs = first < total ? static_cast<int>((total - first + step - 1) / step) : 0;
    first_row = kOutsOfPair<kGated> * first;
    row_step = kOutsOfPair<kGated> * step;
    second_row = kGated ? job.cols : 1;
  }
};

/// This lane's loads of the weight, step by step and pair by pair; zeros outside.
template <typename T, bool kGated>
class GemvLoads {
 public:
  __device__ GemvLoads(const MatmulJob& job, const GemvShare<kGated>& share, int steps)
      : depth_(static_cast<int>(job.depth)),
        steps_(steps),
        steps_left_(steps),
        pairs_left_(share.pairs),
        k_(first_k()),
        row_(share.first_row),
        row_step_(share.row_step),
        cols_(job.cols),
        second_(share.second_row * job.depth),
        at_(static_cast<const T*>(job.weight) + share.first_row * job.depth) {}

  __device__ static int first_k() { return static_cast<int>(threadIdx.x) % kWarp * kPackOf<T>; }

  __device__ void fetch(uint4 (&to)[kLoads]) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const bool exists = has(row);
#pragma unroll
      for (int piece = 0; piece < kPieces; ++piece) {
        const int k = k_ + piece * kPiece;
        to[row * kPieces + piece] = load_streamed_if(at_ + row * second_ + k, exists && k < depth_);
      }
    }
    advance();
  }

  /// Starts to bring the next steps to the second-level cache. They are fetched later all the same,
  /// on GPUs before Hopper only then.
  __device__ void prefetch([[maybe_unused]] int steps) const {
#if __CUDA_ARCH__ >= 900
    GemvLoads next = *this;
    const int row = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll 1
    for (int i = 0; i < steps; ++i) {
      const int k = next.k_ - first_k();
      if (row < kRows && next.has(row)) {
        constexpr int kBytes = static_cast<int>(sizeof(T));
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(
                         __cvta_generic_to_global(next.at_ + row * next.second_ + k)),
                     "r"(min(kStep, depth_ - k) * kBytes)
                     : "memory");
      }
      next.advance();
    }
#endif
  }

 private:
  /// Whether the next pair has this row.
  __device__ bool has(int row) const { return pairs_left_ > 0 && (kGated || row_ + row < cols_); }

  __device__ void advance() {
    k_ += kStep;
    if (--steps_left_ > 0) return;
    steps_left_ = steps_;
    k_ = first_k();
    --pairs_left_;
    row_ += row_step_;
    at_ += row_step_ * depth_;
  }

  int depth_, steps_, steps_left_, pairs_left_, k_;
  int64_t row_, row_step_, cols_, second_;
  const T* at_;
};

/// x to shared memory: [T, steps * kStep], K padded with zeros.
template <typename T>
__device__ void stage_tokens(const MatmulJob& job, int steps, T* to) {
  const int packs = steps * (kStep / kPackOf<T>);
  const auto depth = static_cast<int>(job.depth);
  for (int i = threadIdx.x; i < static_cast<int>(job.rows) * packs; i += kThreads) {
    const int token = i / packs;
    const int k = (i - token * packs) * kPackOf<T>;
    copy_async(shared_address_of(to + int64_t{i} * kPackOf<T>),
               static_cast<const T*>(job.x) + token * job.depth + min(k, depth - kPackOf<T>),
               k < depth);
  }
  commit_copies();
  wait_for_copies<0>();
}

/// The norm's weight to shared memory, as it lies. It is constant: before wait_for_predecessor().
__device__ void stage_norm_weight(const MatmulNorm& norm, int64_t depth, unsigned char* to) {
  const int bytes = static_cast<int>(depth) * (norm.type == ir::DType::kF32 ? 4 : 2);
  const auto* from = static_cast<const unsigned char*>(norm.weight);
  for (int i = static_cast<int>(threadIdx.x) * 16; i < bytes; i += kThreads * 16)
    copy_async(shared_address_of(to + i), from + i);
}

/// Staged rows of x become rms_norm(x), rounded to T. All threads; each has the same elements of
/// every row, so that a row's bits do not depend on the others.
template <typename T, int kTokens>
__device__ void normalise_tokens(const MatmulJob& job, const MatmulNorm& norm, int steps, T* tokens,
                                 const unsigned char* norm_weight) {
  __shared__ float squares[kTokens][kWarps];
  const auto depth = static_cast<int>(job.depth);
  const auto rows = static_cast<int>(job.rows);
  const int first = static_cast<int>(threadIdx.x) * kPackOf<T>;
  float x[kPackOf<T>];
#pragma unroll 1
  for (int token = 0; token < rows; ++token) {
    float sum = 0;
    for (int k = first; k < depth; k += kThreads * kPackOf<T>) {
      load_floats<kPackOf<T>>(tokens + token * steps * kStep + k, x);
#pragma unroll
      for (int i = 0; i < kPackOf<T>; ++i)
        sum += x[i] * x[i];
    }
    sum = warp_sum(sum);
    if (threadIdx.x % kWarp == 0) squares[token][threadIdx.x / kWarp] = sum;
  }
  __syncthreads();
#pragma unroll 1
  for (int token = 0; token < rows; ++token) {
    float total = 0;
    for (int warp = 0; warp < kWarps; ++warp)
      total += squares[token][warp];
    const float scale = 1.0F / sqrtf(total / static_cast<float>(depth) + norm.eps);
    for (int k = first; k < depth; k += kThreads * kPackOf<T>) {
      T* at = tokens + token * steps * kStep + k;
      float weight[kPackOf<T>];
      load_eight(norm_weight, norm.type, k, weight);
      load_floats<kPackOf<T>>(at, x);
      Pack<T, kPackOf<T>> normed;
#pragma unroll
      for (int i = 0; i < kPackOf<T>; ++i)
        normed.at[i] = from_float<T>(x[i] * scale * (weight[i] + norm.offset));
      *reinterpret_cast<Pack<T, kPackOf<T>>*>(at) = normed;
    }
  }
  __syncthreads();
}

/// Sums of a pair of weight rows by tokens, as the tensor cores leave them.
template <int kTokens>
using GemvSums = float[kTokens][4];

/// Adds the products of one step; `x` is this lane's first element of it, of the first token.
/// Tokens that are not there any other will do for.
template <typename T, int kTokens>
__device__ inline void add_step(const uint4 (&w)[kLoads], const T* x, int last_token, int stride,
                                GemvSums<kTokens>& sums) {
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    const uint4 a = w[piece];
    const uint4 b = w[kPieces + piece];
#pragma unroll
    for (int token = 0; token < kTokens; ++token) {
      const int offset = kTokens == 1 ? 0 : min(token, last_token) * stride;
      const uint4 xs = *reinterpret_cast<const uint4*>(x + offset + piece * kPiece);
      multiply_add<T>(sums[token], {a.x, b.x, a.y, b.y}, {xs.x, xs.y});
      multiply_add<T>(sums[token], {a.z, b.z, a.w, b.w}, {xs.z, xs.w});
    }
  }
}

/// Adds up the diagonals, and clears them. Lane kRows * token + row gets that output's sum.
template <int kTokens>
__device__ inline float total_of(GemvSums<kTokens>& sums) {
  const int lane = threadIdx.x % kWarp;
  const int group = lane / 4;
  const bool on_diagonal = lane % 4 == group / 2;
  float own = 0;
#pragma unroll
  for (int token = 0; token < kTokens; ++token) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      float* pair = sums[token] + 2 * row;
      const float part = group % 2 == 0 ? pair[0] : pair[1];
      const float total = warp_sum(on_diagonal ? part : 0.0F);
      if (lane == kRows * token + row) own = total;
      pair[0] = pair[1] = 0;
    }
  }
  return own;
}

/// The same number, which the compiler takes for any other.
__device__ inline int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

/// Where this lane's sum goes: lane kRows * token + row has that of weight row `row` of the pair.
template <bool kGated>
class GemvOuts {
 public:
  __device__ GemvOuts(const MatmulJob& job, const GemvShare<kGated>& share)
      : job_(job),
        second_(static_cast<int>(threadIdx.x) % kRows),
        token_(static_cast<int>(threadIdx.x) % kWarp / kRows),
        col_(share.first_row + (kGated ? 0 : second_)),
        step_(share.row_step) {
    load_bits();
  }

  /// All lanes of the warp; goes on to the next pair.
  __device__ void write(float sum) {
    if constexpr (kGated) {
      const float linear = sum + bits_to_float(bits_.bias, job_.bias_type);
      const float up = __shfl_xor_sync(0xffffffffu, linear, 1);
      if (exists() && second_ == 0) {
        store_out(job_, token_, col_, activate(job_.activation, linear) * up);
      }
    } else {
      if (exists()) store_out(job_, token_, col_, finish(job_, bits_, sum));
    }
    col_ += step_;
    load_bits();
  }

 private:
  __device__ bool exists() const { return token_ < job_.rows && col_ < job_.cols; }

  __device__ void load_bits() {
    if (!exists()) return;
    if constexpr (kGated) {
      if (job_.bias != nullptr) {
        bits_.bias = ops::load_bits(job_.bias, job_.bias_type, col_ + second_ * job_.cols);
      }
    } else {
      bits_ = load_epilogue(job_, token_, col_);
    }
  }

  const MatmulJob& job_;
  int second_, token_;
  int64_t col_, step_;
  EpilogueBits bits_;
};

template <typename T, int kTokens, bool kGated>
__global__ void __launch_bounds__(kThreads, kFit)
    matmul_gemv_kernel(const __grid_constant__ MatmulJob job,
                       const __grid_constant__ MatmulNorm norm, int steps) {
  extern __shared__ __align__(16) unsigned char bytes[];
  device::let_successor_start();
  T* tokens = reinterpret_cast<T*>(bytes);
  const GemvShare<kGated> share(job);
  GemvLoads<T, kGated> loads(job, share, steps);
  uint4 even[kLoads], odd[kLoads];
  loads.fetch(even);
  loads.fetch(odd);
  loads.prefetch(kStepsAhead);
  unsigned char* norm_weight = bytes + job.rows * steps * kStep * sizeof(T);
  if (norm.weight != nullptr) stage_norm_weight(norm, job.depth, norm_weight);
  device::wait_for_predecessor();
  stage_tokens(job, steps, tokens);
  __syncthreads();
  if (norm.weight != nullptr) normalise_tokens<T, kTokens>(job, norm, steps, tokens, norm_weight);

  GemvOuts<kGated> outs(job, share);
  GemvSums<kTokens> sums = {};
  const T* x = tokens + loads.first_k();
  int step = 0;
  const auto advance = [&](uint4(&w)[kLoads]) {
    add_step<T, kTokens>(w, x + step * kStep, static_cast<int>(job.rows) - 1, steps * kStep, sums);
    loads.fetch(w);
    if (++step < steps) return;
    step = 0;
    outs.write(total_of<kTokens>(sums));
  };
  // The branch in the loop keeps the compiler from waiting for both before it fetches any.
#pragma unroll 1
  for (int left = opaque(share.pairs * steps); left > 0; --left) {
    advance(even);
    if (--left == 0) break;
    advance(odd);
  }
}

int64_t steps_of(int64_t depth) {
  return (depth + kStep - 1) / kStep;
}

/// Bytes of x in shared memory.
int64_t staged_bytes(int64_t rows, int64_t depth) {
  constexpr int64_t kElement = 2;
  return rows * steps_of(depth) * kStep * kElement;
}

/// And of the norm's weight behind it.
int64_t staged_bytes_normed(int64_t rows, int64_t depth, ir::DType norm_type) {
  return staged_bytes(rows, depth) + depth * ir::dtype_size(norm_type);
}

/// Of a block of this launch.
int64_t shared_bytes(const Launch& launch) {
  const Tensor& x = launch.in[0];
  const bool normed = launch.attrs<Matmul>().normed();
  const int64_t staged = normed ? staged_bytes_normed(x.dim(0), x.dim(1), launch.in.back().dtype)
                                : staged_bytes(x.dim(0), x.dim(1));
  return std::max<int64_t>(kLeastShared, staged);
}

template <typename T, int kTokens, bool kGated>
void run_tokens(const Launch& launch, const MatmulJob& job) {
  static const bool allowed =
      device::allow_shared(kName, matmul_gemv_kernel<T, kTokens, kGated>, kMaxShared);
  CHECK(allowed);
  const int64_t blocks = std::min<int64_t>(device::multiprocessors(), pairs_of<kGated>(job));
  device::launch_kernel(kName, *launch.queue, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
                        static_cast<size_t>(shared_bytes(launch)),
                        matmul_gemv_kernel<T, kTokens, kGated>, job, matmul_norm(launch),
                        static_cast<int>(steps_of(job.depth)));
}

template <typename T, bool kGated>
void run_typed(const Launch& launch, const MatmulJob& job) {
  if (job.rows == 1) return run_tokens<T, 1, kGated>(launch, job);
  if (job.rows == 2) return run_tokens<T, 2, kGated>(launch, job);
  return run_tokens<T, kMaxTokens, kGated>(launch, job);
}

}  // namespace

std::string matmul_gemv_cuda_why_not(const Launch& launch, const device::Properties& device) {
  const int64_t rows = launch.in[0].dim(0);
  if (rows > kMaxTokens) return str("more than ", kMaxTokens, " rows");
  if (staged_bytes(rows, launch.in[1].dim(1)) > kMaxShared) return "x is too large";
  constexpr int64_t kStatic = int64_t{kMaxTokens} * kWarps * 4;
  std::string reason = why_no_shared(shared_bytes(launch) + kStatic, device);
  if (!reason.empty()) return reason;
  return mma_cuda_why_not(launch);
}

bool matmul_gemv_cuda_gates(const Launch&) {
  return true;
}

bool matmul_gemv_cuda_norms(const Launch& launch) {
  const Tensor& x = launch.in[0];
  return staged_bytes_normed(x.dim(0), x.dim(1), launch.in.back().dtype) <= kMaxShared;
}

void matmul_gemv_cuda(const Launch& launch) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) {
    if (job.gated) return run_typed<T, true>(launch, job);
    run_typed<T, false>(launch, job);
  });
}

}  // namespace millrace::ops
