// Up to 4 rows at the speed of memory, beside other kernels: this one takes half of the registers
// of a multiprocessor, so that the next one's blocks are there, and fetch their first weights,
// while this one still runs.
//
// A warp takes two weight rows (neighbours, or the gate's and up's of an output), and 512
// neighbouring bytes of each at once: memory is fastest so. Lanes hold 8 elements of K each. Tensor
// cores want those of one row from four lanes; here every group of four lanes gives the operands'
// rows of its own part of K, of weight and of x alike, and what counts is the diagonal of the 8 x 8
// product, the sums of eight parts of K. The order of a sum follows from K alone.
//
// Warps claim their rows as they get done: multiprocessors are not equally fast, and where two
// blocks lie on one of them they share its speed.
//
// Where x is normed first, every block does it for itself, in shared memory: that takes less time
// than a kernel between two products.
#include <algorithm>
#include <limits>

#include "base/str.h"
#include "ops/common/queue_number_cuda.h"
#include "ops/common/tensor_core_cuda.cuh"
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
constexpr int kMaxShared = 224 << 10;

/// Of the launch that runs in a queue; zeros between launches.
struct GemvClaims {
  unsigned claimed;  // pairs of weight rows, beside the first ones of the warps
  unsigned ended;    // blocks
};
__device__ GemvClaims gemv_claims[kNumberedQueues];

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

/// The pairs of weight rows of a warp. The first is its own, so that it can be fetched before the
/// predecessor has ended; the others it claims, one before it needs it. Uniform in a warp.
class GemvPairs {
 public:
  static constexpr int kNone = -1;

  __device__ GemvPairs(int64_t total, unsigned* claimed)
      : total_(static_cast<int>(total)), claimed_(claimed) {
    const auto first = static_cast<int>(threadIdx.x / kWarp * gridDim.x + blockIdx.x);
    fetched_ = computed_ = first < total_ ? first : kNone;
  }
  __device__ int fetched() const { return fetched_; }
  __device__ int computed() const { return computed_; }

  /// The first time after wait_for_predecessor(), which leaves the claims at zero.
  __device__ void claim() {
    if (fetched_ != kNone && threadIdx.x % kWarp == 0) claim_ = atomicAdd(claimed_, 1U);
  }
  __device__ void fetch_next() {
    if (fetched_ == kNone) return;
    const auto pair = static_cast<int>(kWarps * gridDim.x + __shfl_sync(0xffffffffu, claim_, 0));
    fetched_ = pair < total_ ? pair : kNone;
    (ahead_[0] == kNone ? ahead_[0] : ahead_[1]) = fetched_;
    claim();
  }
  __device__ void compute_next() {
    computed_ = ahead_[0];
    ahead_[0] = ahead_[1];
    ahead_[1] = kNone;
  }

 private:
  int total_, fetched_, computed_;
  int ahead_[2] = {kNone, kNone};  // fetched, or being fetched, and not yet computed
  unsigned* claimed_;
  unsigned claim_ = 0;  // of lane 0
};

/// This lane's loads of the weight, step by step and pair by pair; zeros outside.
template <typename T, bool kGated>
class GemvLoads {
 public:
  __device__ GemvLoads(const MatmulJob& job, GemvPairs& pairs, int steps)
      : job_(job), pairs_(pairs), steps_(steps), steps_left_(steps) {
    begin_pair();
  }

  __device__ static int first_k() { return static_cast<int>(threadIdx.x) % kWarp * kPackOf<T>; }

  __device__ void fetch(uint4 (&to)[kLoads]) {
    if (steps_left_ == 0) {
      pairs_.fetch_next();
      begin_pair();
    }
    const auto depth = static_cast<int>(job_.depth);
    const int64_t second = kGated ? job_.cols * job_.depth : job_.depth;
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const bool exists = row == 0 ? has_first_ : has_second_;
#pragma unroll
      for (int piece = 0; piece < kPieces; ++piece) {
        const int k = k_ + piece * kPiece;
        to[row * kPieces + piece] = load_streamed_if(at_ + row * second + k, exists && k < depth);
      }
    }
    k_ += kStep;
    --steps_left_;
  }

 private:
  __device__ void begin_pair() {
    const int pair = pairs_.fetched();
    const int64_t row = int64_t{kOutsOfPair<kGated>} * max(pair, 0);
    at_ = static_cast<const T*>(job_.weight) + row * job_.depth;
    has_first_ = pair != GemvPairs::kNone;
    has_second_ = has_first_ && (kGated || row + 1 < job_.cols);
    k_ = first_k();
    steps_left_ = steps_;
  }

  const MatmulJob& job_;
  GemvPairs& pairs_;
  int steps_, steps_left_, k_ = 0;
  bool has_first_ = false, has_second_ = false;
  const T* at_ = nullptr;
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

/// Where this lane's sum goes: lane kRows * token + row has that of weight row `row` of the pair.
template <bool kGated>
class GemvOuts {
 public:
  explicit __device__ GemvOuts(const MatmulJob& job)
      : job_(job),
        second_(static_cast<int>(threadIdx.x) % kRows),
        token_(static_cast<int>(threadIdx.x) % kWarp / kRows) {}

  /// Fetches what the sums of a pair are finished with.
  __device__ void begin_pair(int pair) {
    col_ = pair == GemvPairs::kNone ? job_.cols
                                    : int64_t{kOutsOfPair<kGated>} * pair + (kGated ? 0 : second_);
    load_bits();
  }

  /// All lanes of the warp.
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
  int64_t col_ = 0;
  EpilogueBits bits_;
};

template <typename T, int kTokens, bool kGated>
__global__ void __launch_bounds__(kThreads, kFit)
    matmul_gemv_kernel(const __grid_constant__ MatmulJob job,
                       const __grid_constant__ MatmulNorm norm, int steps, int queue) {
  extern __shared__ __align__(16) unsigned char bytes[];
  device::let_successor_start();
  T* tokens = reinterpret_cast<T*>(bytes);
  GemvClaims& claims = gemv_claims[queue];
  GemvPairs pairs(pairs_of<kGated>(job), &claims.claimed);
  GemvLoads<T, kGated> loads(job, pairs, steps);
  uint4 even[kLoads], odd[kLoads];
  loads.fetch(even);
  if (steps > 1) loads.fetch(odd);
  unsigned char* norm_weight = bytes + job.rows * steps * kStep * sizeof(T);
  if (norm.weight != nullptr) stage_norm_weight(norm, job.depth, norm_weight);
  device::wait_for_predecessor();
  pairs.claim();
  stage_tokens(job, steps, tokens);
  __syncthreads();
  if (norm.weight != nullptr) normalise_tokens<T, kTokens>(job, norm, steps, tokens, norm_weight);
  if (steps == 1) loads.fetch(odd);

  GemvOuts<kGated> outs(job);
  outs.begin_pair(pairs.computed());
  GemvSums<kTokens> sums = {};
  const T* x = tokens + loads.first_k();
  int step = 0;
  const auto advance = [&](uint4(&w)[kLoads]) {
    add_step<T, kTokens>(w, x + step * kStep, static_cast<int>(job.rows) - 1, steps * kStep, sums);
    loads.fetch(w);
    if (++step < steps) return;
    step = 0;
    outs.write(total_of<kTokens>(sums));
    pairs.compute_next();
    outs.begin_pair(pairs.computed());
  };
  // The branch in the loop keeps the compiler from waiting for both before it fetches any.
#pragma unroll 1
  while (pairs.computed() != GemvPairs::kNone) {
    advance(even);
    if (pairs.computed() == GemvPairs::kNone) break;
    advance(odd);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // the claims of this block come before its end
    if (atomicInc(&claims.ended, gridDim.x - 1) == gridDim.x - 1) claims.claimed = 0;
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

template <typename T, int kTokens, bool kGated>
void run_tokens(const Launch& launch, const MatmulJob& job) {
  static const bool allowed =
      device::allow_shared(kName, matmul_gemv_kernel<T, kTokens, kGated>, kMaxShared);
  CHECK(allowed);
  const int64_t blocks = std::min<int64_t>(device::multiprocessors(), pairs_of<kGated>(job));
  const MatmulNorm norm = matmul_norm(launch);
  const int64_t shared = norm.weight == nullptr
                             ? staged_bytes(job.rows, job.depth)
                             : staged_bytes_normed(job.rows, job.depth, norm.type);
  device::launch_kernel(kName, *launch.queue, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
                        static_cast<size_t>(shared), matmul_gemv_kernel<T, kTokens, kGated>, job,
                        norm, static_cast<int>(steps_of(job.depth)), queue_number(*launch.queue));
}

template <typename T, bool kGated>
void run_typed(const Launch& launch, const MatmulJob& job) {
  if (job.rows == 1) return run_tokens<T, 1, kGated>(launch, job);
  if (job.rows == 2) return run_tokens<T, 2, kGated>(launch, job);
  return run_tokens<T, kMaxTokens, kGated>(launch, job);
}

}  // namespace

std::string matmul_gemv_cuda_why_not(const Launch& launch, const device::Properties&) {
  const int64_t rows = launch.in[0].dim(0);
  if (rows > kMaxTokens) return str("more than ", kMaxTokens, " rows");
  if (staged_bytes(rows, launch.in[1].dim(1)) > kMaxShared) return "x is too large";
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
