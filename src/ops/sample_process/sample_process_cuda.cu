// Each block owns a range of a row's tokens: it walks the whole history and all lists, acts on its
// own tokens only, and needs no other block.
#include <algorithm>
#include <bit>

#include "ops/common/cuda_kernel.cuh"
#include "ops/common/sampling_row.h"
#include "ops/sample_process/process_row.h"

namespace millrace::ops {
namespace {

constexpr int kThreads = 512;
constexpr int64_t kBlocks = 16;        // of a row, where shared memory can hold the counts
constexpr int64_t kMinTokens = 1024;   // of a block
constexpr int64_t kMaxTokens = 12000;  // their counts and the record are below 48 KiB
constexpr int kSeen = int{1} << 30;    // the token is in the history
constexpr float kMasked = -__builtin_inff();

/// Inputs and outputs by their names.
struct ProcessIo {
  const float* logits;      // [L, V]
  const int32_t* rows;      // [L, 32]
  const int32_t* lists;     // [P]
  const int32_t* history;   // [R, M]
  float* adjusted;          // [L, V]
  int64_t vocab, capacity;  // V, M
  int64_t tokens;           // of a block; a multiple of 4
  bool is_packed;           // rows lie on 16 bytes
};

/// A block's part of a row. All methods are called by all threads of the block.
struct BlockTokens {
  const SamplingRow& row;
  const int32_t* lists;
  const int32_t* history;  // [length]
  int length;
  float* x;   // [count]: the tokens from `first` on
  int* seen;  // [count] shared: kSeen and the count among the new tokens
  int64_t first;
  int count;

  /// Where token `id` is in this part, or -1.
  __device__ int place_of(int32_t id) const {
    const int64_t place = int64_t{id} - first;
    return id >= 0 && place >= 0 && place < count ? static_cast<int>(place) : -1;
  }
  __device__ void set(int32_t id, float value) const {
    const int place = place_of(id);
    if (place >= 0) x[place] = value;
  }
  __device__ void set_all(const ListSpan& span, float value) const {
    for (int i = static_cast<int>(threadIdx.x); i < span.count; i += kThreads)
      set(lists[span.offset + i], value);
  }
  __device__ void mask_all() const {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
      x[i] = kMasked;
  }
  /// Whether `n` tokens of `other` are the last ones of the history. REQUIRES: n <= length.
  __device__ bool ends_with(const int32_t* other, int n) const {
    for (int i = 0; i < n; ++i) {
      if (other[i] != history[length - n + i]) return false;
    }
    return true;
  }
};

__device__ void copy(const BlockTokens& p, const float* logits, bool is_packed) {
  const int thread = static_cast<int>(threadIdx.x);
  if (!is_packed) {
    for (int i = thread; i < p.count; i += kThreads)
      p.x[i] = logits[i];
    return;
  }
#pragma unroll 4
  for (int i = 4 * thread; i < p.count; i += 4 * kThreads)
    *reinterpret_cast<float4*>(p.x + i) = *reinterpret_cast<const float4*>(logits + i);
}

__device__ void add_bias(const BlockTokens& p) {
  const ListSpan span = p.row.logit_bias;  // no token is in it twice
  for (int i = 2 * static_cast<int>(threadIdx.x); i + 1 < span.count; i += 2 * kThreads) {
    const int place = p.place_of(p.lists[span.offset + i]);
    if (place >= 0) p.x[place] += std::bit_cast<float>(p.lists[span.offset + i + 1]);
  }
}

/// As penalise() of process_row.h. No multiplication may be fused with a subtraction.
__device__ float penalised(const SamplingRow& row, float x, int count) {
  x = x < 0 ? __fmul_rn(x, row.repetition_penalty) : __fdiv_rn(x, row.repetition_penalty);
  if (count == 0) return x;
  const float frequency = __fmul_rn(static_cast<float>(count), row.frequency_penalty);
  return __fsub_rn(x, __fadd_rn(frequency, row.presence_penalty));
}

__device__ void penalise_tokens(const BlockTokens& p) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < p.count; i += kThreads)
    p.seen[i] = 0;
  __syncthreads();
  for (int i = thread; i < p.length; i += kThreads) {
    const int place = p.place_of(p.history[i]);
    if (place < 0) continue;
    if (i >= p.row.prompt_length) atomicAdd(&p.seen[place], 1);
    atomicOr(&p.seen[place], kSeen);
  }
  __syncthreads();
  for (int i = thread; i < p.count; i += kThreads) {
    if (p.seen[i] != 0) p.x[i] = penalised(p.row, p.x[i], p.seen[i] & ~kSeen);
  }
}

__device__ void mask_repeated_ngrams(const BlockTokens& p) {
  const int n = p.row.no_repeat_ngram_size;
  if (n == 0 || p.length < n) return;
  for (int i = static_cast<int>(threadIdx.x); i + n <= p.length; i += kThreads) {
    const int32_t last = p.history[i + n - 1];
    if (p.place_of(last) >= 0 && p.ends_with(p.history + i, n - 1)) p.set(last, kMasked);
  }
}

/// A thread per word; where the words begin, all threads read.
__device__ void mask_bad_words(const BlockTokens& p) {
  const int32_t* words = p.lists + p.row.bad_words.offset;
  unsigned word = 0;
  for (int i = 0; i < p.row.bad_words.count; i += words[i] + 1, ++word) {
    if (word % kThreads != threadIdx.x) continue;
    const int n = words[i];
    if (n - 1 <= p.length && p.ends_with(words + i + 1, n - 1)) p.set(words[i + n], kMasked);
  }
}

__device__ void force(const BlockTokens& p) {
  if (p.row.forced_bos >= 0 && p.row.length == 1) {
    __syncthreads();
    p.mask_all();
    __syncthreads();
    if (threadIdx.x == 0) p.set(p.row.forced_bos, 0);
  }
  if (p.row.forced_eos.count > 0 && p.row.length == p.row.max_length - 1) {
    __syncthreads();
    p.mask_all();
    __syncthreads();
    p.set_all(p.row.forced_eos, 0);
  }
}

/// Grid: parts of a row, then rows.
__global__ void __launch_bounds__(kThreads) sample_process_kernel(ProcessIo io) {
  extern __shared__ int seen[];  // [io.tokens]
  __shared__ alignas(SamplingRow) int32_t words[kSamplingRowWords];
  device::wait_for_predecessor();
  device::let_successor_start();
  const int64_t parts = (io.vocab + io.tokens - 1) / io.tokens;
  const int64_t l = blockIdx.x / parts, first = blockIdx.x % parts * io.tokens;
  if (threadIdx.x < kSamplingRowWords) {
    words[threadIdx.x] = io.rows[l * kSamplingRowWords + threadIdx.x];
  }
  __syncthreads();
  const SamplingRow& row = *reinterpret_cast<const SamplingRow*>(words);
  if (row.slot < 0 || (row.flags & kSamplingAdjusts) == 0) return;
  const int64_t at = l * io.vocab + first;
  const BlockTokens p{.row = row,
                      .lists = io.lists,
                      .history = io.history + row.slot * io.capacity,
                      .length = static_cast<int>(min(int64_t{row.length}, io.capacity)),
                      .x = io.adjusted + at,
                      .seen = seen,
                      .first = first,
                      .count = static_cast<int>(min(io.tokens, io.vocab - first))};
  copy(p, io.logits + at, io.is_packed);
  __syncthreads();
  add_bias(p);
  __syncthreads();
  if (row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0) {
    penalise_tokens(p);
    __syncthreads();
  }
  mask_repeated_ngrams(p);
  mask_bad_words(p);
  if (row.length - row.prompt_length < row.min_new_tokens) p.set_all(row.end_ids, kMasked);
  force(p);
  __syncthreads();
  p.set_all(row.suppress, kMasked);
  if (row.length == row.begin_length) p.set_all(row.begin_suppress, kMasked);
}

bool is_on_16_bytes(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

}  // namespace

void sample_process_cuda(const Launch& launch) {
  const int64_t rows = launch.in[0].dim(0), vocab = launch.in[0].dim(1);
  if (rows == 0 || vocab == 0) return;
  ProcessIo io{.logits = launch.in[0].as<float>(),
               .rows = launch.in[1].as<int32_t>(),
               .lists = launch.in[2].as<int32_t>(),
               .history = launch.in[3].as<int32_t>(),
               .adjusted = launch.out[0].as<float>(),
               .vocab = vocab,
               .capacity = launch.in[3].dim(1),
               .tokens = std::clamp((vocab / kBlocks + 4) / 4 * 4, kMinTokens, kMaxTokens),
               .is_packed = vocab % 4 == 0 && is_on_16_bytes(launch.in[0].data) &&
                            is_on_16_bytes(launch.out[0].data)};
  const int64_t blocks = rows * ((vocab + io.tokens - 1) / io.tokens);
  device::launch_kernel("sample_process_cuda", *launch.queue, dim3(static_cast<unsigned>(blocks)),
                        dim3(kThreads), static_cast<size_t>(io.tokens) * sizeof(int),
                        sample_process_kernel, io);
}

}  // namespace millrace::ops
