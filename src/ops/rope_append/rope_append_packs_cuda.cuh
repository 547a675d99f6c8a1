// rope_append, 16 bytes an access: a few lanes have a head, and each of them two packs of it,
// chosen so that both elements of every rotated pair are in one lane. A lane has the same place in
// several heads, reads all of them before it works on the first, and needs the angles once. For .cu
// files.
#pragma once

#include "ops/common/weight_access_cuda.cuh"
#include "ops/rope_append/rope_append_args_cuda.cuh"

namespace millrace::ops {

inline constexpr int kPackThreads = 128;
inline constexpr int kPackBlocks = 5;  // of a multiprocessor, at least: what 96 registers allow
inline constexpr int kHeldHeads = 3;   // that a lane reads at once

/// Where in a head a lane's two packs begin, and which of them exist.
struct PackPlaces {
  int first, second;
  bool has_first, has_second;
  bool rotates;
};

/// Lanes first share the rotated part, then the rest, of which the second packs are the upper half.
template <int kPack>
__device__ PackPlaces places_of(int unit, int size, int rotary_dim, bool interleaved) {
  const int rotating = rotary_dim / (2 * kPack);
  if (unit < rotating) {
    if (interleaved) return {2 * unit * kPack, (2 * unit + 1) * kPack, true, true, true};
    return {unit * kPack, rotary_dim / 2 + unit * kPack, true, true, true};
  }
  unit -= rotating;
  const int packs = (size - rotary_dim) / kPack, half = (packs + 1) / 2;
  return {rotary_dim + unit * kPack, rotary_dim + (half + unit) * kPack, unit < half,
          unit < half && half + unit < packs, false};
}

/// The two packs of one head, as they were read. (A Pack would take a register an element.)
struct HeldPacks {
  uint4 first, second;
};

/// What the lanes of one head do; all of them call each method together. Heads are counted over
/// Q's, then K's, then V's.
template <bool kNorm, typename T, typename Stored>
class PackLane {
 public:
  static constexpr int kPack = kPackOf<T>;
  using TypePack = Pack<T, kPack>;

  __device__ PackLane(const AppendArgs& a, int64_t row, int lanes)
      : a_(a),
        lanes_(lanes),
        unit_(static_cast<int>(threadIdx.x) & (lanes - 1)),
        at_(places_of<kPack>(unit_, a.head_size, a.rotary_dim, a.interleaved)),
        gap_(at_.second - at_.first),
        first_v_(a.heads + a.kv_heads),
        q_(reinterpret_cast<const T*>(a.q) + row * a.q_stride + at_.first),
        k_(reinterpret_cast<const T*>(a.k) + row * a.k_stride + at_.first - a.heads * a.head_size),
        v_(reinterpret_cast<const T*>(a.v) + row * a.v_stride + at_.first - first_v_ * a.head_size),
        q_out_(reinterpret_cast<T*>(a.q_out) + row * a.heads * a.head_size + at_.first) {}

  /// The weights of the norms do not wait for the kernel before.
  __device__ void prefetch_norms() const {
    if (!at_.has_first) return;
    for (const int at : {at_.first, at_.has_second ? at_.second : at_.first}) {
      prefetch_to_l2(static_cast<const char*>(a_.q_norm) + int64_t{at} * size_of(a_.q_norm_type));
      prefetch_to_l2(static_cast<const char*>(a_.k_norm) + int64_t{at} * size_of(a_.k_norm_type));
    }
  }

  __device__ void load_angles(const float* angles) {
    if (!at_.rotates) return;
    load_floats<kPack>(angles + unit_ * kPack, cosines_);
    load_floats<kPack>(angles + a_.rotary_dim / 2 + unit_ * kPack, sines_);
  }

  __device__ HeldPacks load(int head) const {
    const T* base = head < a_.heads ? q_ : head < first_v_ ? k_ : v_;
    const T* x = base + int64_t{head} * a_.head_size;
    HeldPacks held{};
    if (at_.has_first) held.first = *reinterpret_cast<const uint4*>(x);
    if (at_.has_second) held.second = *reinterpret_cast<const uint4*>(x + gap_);
    return held;
  }

  /// Before the first K or V head is finished.
  __device__ void set_slot(const TokenSlot& slot) {
    slot_ = slot.block * a_.block_bytes;
    token_ = slot.token;
  }

  __device__ void finish(int head, const HeldPacks& held) const {
    const auto first = __builtin_bit_cast(TypePack, held.first);
    const auto second = __builtin_bit_cast(TypePack, held.second);
    float x[2 * kPack];
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      x[i] = to_float(first.at[i]);
      x[kPack + i] = to_float(second.at[i]);
    }
    if (head < first_v_) {
      if constexpr (kNorm) normalise(head, x);
      if (at_.rotates) rotate(x);
    }
    if (head < a_.heads) {
      write(x, q_out_ + int64_t{head} * a_.head_size);
    } else {
      append(head, x);
    }
  }

 private:
  __device__ static int size_of(ir::DType type) { return type == ir::DType::kF32 ? 4 : 2; }

  /// The lanes of this head in the warp.
  __device__ unsigned mask() const {
    const unsigned lane = threadIdx.x % kWarp;
    return (0xffffffffu >> (kWarp - lanes_)) << (lane & ~static_cast<unsigned>(lanes_ - 1));
  }

  /// Products and sums are rounded one by one, as on a CPU.
  __device__ void rotate(float (&x)[2 * kPack]) const {
    if (a_.interleaved) {
#pragma unroll
      for (int i = 0; i < kPack; ++i)
        rotate_pair(cosines_[i], sines_[i], &x[2 * i], &x[2 * i + 1]);
    } else {
#pragma unroll
      for (int i = 0; i < kPack; ++i)
        rotate_pair(cosines_[i], sines_[i], &x[i], &x[kPack + i]);
    }
  }
  __device__ static void rotate_pair(float cosine, float sine, float* x0, float* x1) {
    const float a = *x0, b = *x1;
    *x0 = __fsub_rn(__fmul_rn(a, cosine), __fmul_rn(b, sine));
    *x1 = __fadd_rn(__fmul_rn(b, cosine), __fmul_rn(a, sine));
  }

  /// The squares are summed in double, as in the reference, so that what is stored in few bits is
  /// rounded the same way.
  __device__ void normalise(int head, float (&x)[2 * kPack]) const {
    double squares = 0;  // packs that do not exist are zero
#pragma unroll
    for (int i = 0; i < 2 * kPack; ++i)
      squares += static_cast<double>(x[i]) * x[i];
    for (int step = lanes_ / 2; step > 0; step /= 2)
      squares += __shfl_xor_sync(mask(), squares, step);
    const float factor = norm_factor_of(squares, a_);
    const void* norm = head < a_.heads ? a_.q_norm : a_.k_norm;
    const ir::DType type = head < a_.heads ? a_.q_norm_type : a_.k_norm_type;
    if (at_.has_first) scale_pack(norm, type, at_.first, factor, x);
    if (at_.has_second) scale_pack(norm, type, at_.second, factor, x + kPack);
  }

  __device__ void scale_pack(const void* norm, ir::DType type, int first, float factor,
                             float* x) const {
    float weight[kPack];
    load_weights<kPack>(norm, type, first, weight);
#pragma unroll
    for (int i = 0; i < kPack; ++i)
      x[i] = __fmul_rn(__fadd_rn(a_.norm_offset, weight[i]), __fmul_rn(x[i], factor));
  }

  /// `out`: where the first pack goes.
  template <typename Out>
  __device__ void write(const float (&x)[2 * kPack], Out* out) const {
    if (at_.has_first) store_floats<kPack>(x, out);
    if (at_.has_second) store_floats<kPack>(x + kPack, out + gap_);
  }

  /// A head of K or V, into the cache.
  __device__ void append(int head, const float (&x)[2 * kPack]) const {
    const bool is_v = head >= first_v_;
    const int own = head - (is_v ? first_v_ : a_.heads);
    const int64_t vector = int64_t{own} * a_.tokens_per_block + token_;
    Stored* out = reinterpret_cast<Stored*>((is_v ? a_.v_plane : a_.k_plane) + slot_) +
                  vector * a_.head_size + at_.first;
    if constexpr (kHasScale<Stored>) {
      const Int8Scale stored(largest_of(x));
      write_int8(x, stored, out);
      if (unit_ == 0) {
        reinterpret_cast<float*>((is_v ? a_.v_scale : a_.k_scale) + slot_)[vector] = stored.scale;
      }
    } else {
      write(x, out);
    }
  }

  __device__ float largest_of(const float (&x)[2 * kPack]) const {
    float largest = 0;
#pragma unroll
    for (int i = 0; i < 2 * kPack; ++i)
      largest = larger_size(largest, x[i]);
    for (int step = lanes_ / 2; step > 0; step /= 2)
      largest = larger_size(largest, __shfl_xor_sync(mask(), largest, step));
    return largest;
  }

  __device__ void write_int8(const float (&x)[2 * kPack], const Int8Scale& stored,
                             KvInt8* out) const {
    Pack<KvInt8, kPack> first, second;
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      first.at[i] = stored(x[i]);
      second.at[i] = stored(x[kPack + i]);
    }
    if (at_.has_first) store_pack(first, out);
    if (at_.has_second) store_pack(second, out + gap_);
  }

  const AppendArgs& a_;
  const int lanes_, unit_;
  const PackPlaces at_;
  const int gap_;      // from the first pack to the second
  const int first_v_;  // among the heads
  // Where this lane's first pack of head 0 is read and written, had each the heads before it, too.
  const T *const q_, *const k_, *const v_;
  T* const q_out_;
  int64_t slot_ = 0;  // bytes from block 0 to the row's
  int token_ = 0;
  float cosines_[kPack] = {}, sines_[kPack] = {};
};

/// Where row `row` goes, found by the thread whose sequence owns it, for the whole block. What a
/// thread looks at first is read when it is made, which may be before the block waits for other
/// kernels: no kernel writes lengths and block tables.
class SlotSearch {
 public:
  __device__ explicit SlotSearch(const AppendArgs& a) : a_(a), own_(read(threadIdx.x)) {}

  /// `found` is in shared memory.
  __device__ TokenSlot operator()(int64_t row, TokenSlot* found) const {
    if (threadIdx.x == 0) found->sequence = -1;
    __syncthreads();
    Lengths lengths = own_;
    for (unsigned s = threadIdx.x; s < a_.sequences; s += blockDim.x) {
      if (s != threadIdx.x) lengths = read(s);
      const int64_t i = row - lengths.query_start;
      if (i >= 0 && i < lengths.query) {  // of one thread at most: rows have one owner
        *found =
            slot_in(a_, static_cast<int>(s), lengths.all - lengths.query + static_cast<int>(i));
      }
    }
    __syncthreads();
    return *found;
  }

 private:
  struct Lengths {
    int query_start = 0, query = 0, all = 0;
  };
  __device__ Lengths read(unsigned s) const {
    if (s >= a_.sequences) return {};
    return {a_.query_start[s], a_.query_length[s], a_.sequence_length[s]};
  }

  const AppendArgs& a_;
  const Lengths own_;
};

/// Grid: rows, parts of the heads. `lanes` of a head: a power of two.
template <bool kNorm, typename T, typename Stored>
__global__ void __launch_bounds__(kPackThreads, kPackBlocks)
    append_packs(const __grid_constant__ AppendArgs a, int lanes) {
  __shared__ TokenSlot found;
  device::let_successor_start();
  const int64_t row = blockIdx.x;
  PackLane<kNorm, T, Stored> lane(a, row, lanes);
  const SlotSearch search(a);
  if constexpr (kNorm) lane.prefetch_norms();
  device::wait_for_predecessor();
  const int at_once = kPackThreads / lanes;
  const int step = static_cast<int>(gridDim.y) * at_once;
  int head = static_cast<int>(blockIdx.y) * at_once + static_cast<int>(threadIdx.x) / lanes;
  HeldPacks held[kHeldHeads];
  const auto load = [&] {
#pragma unroll
    for (int i = 0; i < kHeldHeads; ++i) {
      if (head + i * step < a.all_heads()) held[i] = lane.load(head + i * step);
    }
  };
  load();
  if (a.angles != nullptr) lane.load_angles(a.angles + row * a.rotary_dim);
  const TokenSlot slot = search(row, &found);
  if (slot.sequence < 0) return;
  lane.set_slot(slot);
  while (head < a.all_heads()) {
#pragma unroll
    for (int i = 0; i < kHeldHeads; ++i) {
      if (head + i * step < a.all_heads()) lane.finish(head + i * step, held[i]);
    }
    head += kHeldHeads * step;
    load();
  }
}

}  // namespace millrace::ops
