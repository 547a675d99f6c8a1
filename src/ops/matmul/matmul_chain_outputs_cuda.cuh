// The finishing warps of matmul_chain_cuda.
#pragma once

#include "ops/matmul/matmul_chain_cuda.cuh"
#include "ops/matmul/matmul_epilogue_cuda.cuh"

namespace millrace::ops::chain {

/// One of the warps that add what the others have multiplied, and write it.
class Outputs {
 public:
  __device__ Outputs(const Chain& chain, const Memory& memory, Counters& counters,
                     Exchange& exchange, int turn)
      : chain_(chain),
        memory_(memory),
        counters_(counters),
        exchange_(exchange),
        turn_(turn),
        lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ void run() {
    device::wait_for_predecessor();  // the last chain has ended, too
    handed_ = exchange_.of_launch(0);
    if (chain_.exchanges) clear_next();
    hopper::arrive_named(kTurnRead, kTurnReaders);
    for (int parity = 0;; parity ^= 1) {
      hopper::wait_barrier(memory_.started(turn_), parity);
      const int packed = memory_.piece_of_turn(turn_);
      if (packed == Piece::kNone) return;
      finish_unit(Piece::of(packed), parity);
    }
  }

 private:
  /// This warp's part of what the next launch uses.
  __device__ void clear_next() const {
    auto* packs = reinterpret_cast<uint4*>(exchange_.of_launch(1));
    const auto warp = static_cast<int>(blockIdx.x) * kFinishing + turn_;
    for (int i = warp * kWarp + lane_; i < Exchange::kElements / 8;
         i += static_cast<int>(gridDim.x) * kFinishing * kWarp)
      packs[i] = make_uint4(0, 0, 0, 0);
  }

  /// From then on residuals may be read, and outputs may lie where products before read.
  __device__ void wait_for_products(int count) {
    if (done_ >= count) return;
    done_ = count;
    if (lane_ == 0) {
      const auto units = static_cast<unsigned>(chain_.products[count - 1].units);
      while (read_count(&counters_.done[count - 1]) < units) {
      }
    }
    __syncwarp();
  }

  __device__ void finish_unit(const Piece& piece, int parity) {
    const Product& product = chain_.products[piece.product];
    const MatmulJob& job = product.job;
    wait_for_products(piece.product);
    EpilogueBits bits[2];
    load_bits(job, piece.unit, bits);
    hopper::wait_barrier(memory_.summed(turn_), parity);
    float4 total = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int warp = 0; warp < kMultiplying; ++warp) {
      const float4 more = memory_.sums(turn_, warp)[lane_];
      total.x += more.x;
      total.y += more.y;
      total.z += more.z;
      total.w += more.w;
    }
    __syncwarp();
    if (lane_ == 0) hopper::arrive(memory_.added(turn_));
    const float sums[4] = {total.x, total.y, total.z, total.w};
    float outs[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (has_token(job, i)) outs[i] = out_of(job, bits, sums, i);
    }
    if (product.handed >= 0) hand_over_outs(job, piece.unit, handed_ + product.handed, outs);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (has_token(job, i)) store_out(job, token_of(i), col_of(piece.unit), outs[i]);
    }
    if (piece.product + 1 == chain_.count) return;
    __syncwarp();
    if (lane_ == 0) count_up(&counters_.done[piece.product]);
  }

  /// Where sum i of this lane goes: lanes 4 g and 4 g + 1 have those of weight row g.
  __device__ int token_of(int i) const { return lane_ % 4 * 2 + i; }
  __device__ bool has_token(const MatmulJob& job, int i) const { return token_of(i) < job.rows; }

  __device__ int64_t col_of(int unit) const { return int64_t{unit} * kUnit + lane_ / 4; }

  /// Of tokens 2 t and 2 t + 1; gated: and of up's.
  __device__ void load_bits(const MatmulJob& job, int unit, EpilogueBits (&bits)[2]) const {
    const int64_t col = col_of(unit);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (job.bias != nullptr) {
        bits[i].bias =
            ops::load_bits(job.bias, job.bias_type, job.gated ? col + i * job.cols : col);
      }
      if (job.residual == nullptr || !has_token(job, i)) continue;
      // Another block may have written it in this launch.
      const int64_t at = token_of(i) * job.cols + col;
      bits[i].residual = __ldcg(static_cast<const unsigned short*>(job.residual) + at);
    }
  }

  /// Of token 2 t + i.
  __device__ static float out_of(const MatmulJob& job, const EpilogueBits (&bits)[2],
                                 const float (&sums)[4], int i) {
    if (!job.gated) return finish_called(job, bits[i].bias, bits[i].residual, sums[i]);
    const float gate = sums[i] + bits_to_float(bits[0].bias, job.bias_type);
    const float up = sums[i + 2] + bits_to_float(bits[1].bias, job.bias_type);
    return activate_called(job.activation, gate) * up;
  }

  __device__ void hand_over_outs(const MatmulJob& job, int unit, uint16_t* to,
                                 const float (&outs)[2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!has_token(job, i)) continue;
      const uint16_t bits = job.out_type == ir::DType::kBF16
                                ? __bfloat16_as_ushort(__float2bfloat16_rn(outs[i]))
                                : __half_as_ushort(__float2half_rn(outs[i]));
      hand_over(to + token_of(i) * job.cols + col_of(unit), bits);
    }
  }

  __device__ __noinline__ static float finish_called(const MatmulJob& job, uint32_t bias,
                                                     uint32_t residual, float sum) {
    return finish(job, {bias, residual}, sum);
  }

  const Chain& chain_;
  const Memory& memory_;
  Counters& counters_;
  Exchange& exchange_;
  uint16_t* handed_ = nullptr;  // what this launch exchanges
  int turn_, lane_;
  int done_ = 0;  // products that are known to be done
};

}  // namespace millrace::ops::chain
