// Products of bf16 pairs: twice the work per instruction, and weights that need no widening.
#include <bit>

#include "ops/common/matmul_kernels.h"
#include "ops/common/matmul_panels.h"
#include "ops/common/vec_avx512.h"

namespace millrace::ops {
namespace {

struct PairCells {
  using V = avx512::Vec;
  using Element = Bf16;
  static constexpr int kDepth = 2;
  static __m256 load(const Bf16* p) { return _mm256_loadu_ps(reinterpret_cast<const float*>(p)); }
  static __m256 load_first(const Bf16* p, int64_t count) {
    const auto mask = static_cast<__mmask16>((1U << count) - 1);
    return _mm256_castsi256_ps(_mm256_maskz_loadu_epi16(mask, p));
  }
  static V multiply(V x, V w, V sum) {
    return {_mm512_dpbf16_ps(sum.v, std::bit_cast<__m512bh>(x.v), std::bit_cast<__m512bh>(w.v))};
  }
};

constexpr int64_t kDepthBlock = kBlockCells * PairCells::kDepth;

/// Rounds x to bf16; an odd K gets a zero behind it.
void pack_pairs(const MatmulJob& job, int64_t begin, int64_t end, void* packed) {
  for (int64_t t = begin; t < end; ++t) {
    const float* x = static_cast<const float*>(job.x) + t * job.depth;
    auto* to = static_cast<Bf16*>(packed) + t * kDepthBlock;
    for (int64_t k = 0; k < job.depth; k += kDepthBlock, to += job.rows * kDepthBlock) {
      for_vectors<avx512::Vec>(std::min(kDepthBlock, job.depth - k), [&](int64_t i, auto lanes) {
        const __m256bh rounded = _mm512_cvtneps_pbh(load<avx512::Vec>(x + k + i, lanes).v);
        // A whole vector stays within the block: its length is a multiple of the vector's.
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), std::bit_cast<__m256i>(rounded));
      });
    }
  }
}

void multiply_pairs(const MatmulJob& job, const MatmulPart& part, const void* packed) {
  multiply_panels<PairCells>(job, part, static_cast<const float*>(packed));
}

}  // namespace

const PanelsKernel kPanelsAvx512Bf16{.depth_block = kDepthBlock,
                                     .col_block = PanelSizes<avx512::Vec>::kColBlock,
                                     .pack_x = pack_pairs,
                                     .multiply = multiply_pairs};

}  // namespace millrace::ops
