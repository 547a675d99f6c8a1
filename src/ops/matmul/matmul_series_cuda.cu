// Consecutive products of 5 to 128 rows, one launch for each, whose RMS norms are not launches of
// their own: the product that makes what is normed hands it on (matmul_handed_norm.h). Up to 32
// rows by the kernels of matmul_swap_cuda, for more by those of matmul_split_cuda.
//
// What is handed on lies in memory of the queue, not in a workspace: two launches share it.
#include <algorithm>
#include <array>
#include <mutex>
#include <span>

#include "base/str.h"
#include "device/cuda/launch.h"
#include "ops/common/queue_number_cuda.h"
#include "ops/common/vector_access_cuda.cuh"
#include "ops/matmul/matmul_composed_cuda.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_handed_norm.h"

namespace millrace::ops {
namespace {

constexpr int64_t kFewRows = 4;  // that matmul_chain_cuda takes
constexpr int64_t kSwapRows = 32, kMostRows = 128;
constexpr int kHanding = 4;  // the first queues; others norm by launches of their own
constexpr int64_t kMostCols = 8192, kMostSquares = 1 << 16;

/// Of a queue: the next launch's x, and the squares of the rows before the norm.
struct Handed {
  uint16_t scaled[kMostRows * kMostCols];  // bf16
  float squares[kMostSquares];
};
__device__ Handed handed_on[kHanding];

/// On the current device; null where the queue has none.
Handed* handed_of(const device::Queue& queue) {
  constexpr int kMostDevices = 64;
  static std::mutex mutex;
  static std::array<Handed*, kMostDevices> first{};
  const int number = queue_number(queue);
  if (number >= kHanding) return nullptr;
  int device = 0;
  device::check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  if (device >= kMostDevices) return nullptr;
  const std::scoped_lock lock(mutex);
  Handed*& here = first[static_cast<size_t>(device)];
  if (here == nullptr) {
    void* address = nullptr;
    device::check_cuda(cudaGetSymbolAddress(&address, handed_on), "cudaGetSymbolAddress");
    here = static_cast<Handed*>(address);
  }
  return here + number;
}

bool is_swapped(const Launch& launch) {
  return launch.in[0].dim(0) <= kSwapRows;
}

/// The two kernels as one, for what they do not do themselves.
std::string why_not(const Launch& launch, const device::Properties& properties) {
  return is_swapped(launch) ? matmul_swap_cuda_why_not(launch, properties, 0)
                            : matmul_split_cuda_why_not(launch, properties);
}
bool always(const Launch&) {
  return true;
}
constexpr MatmulKernel kPlain = {.why_not = why_not, .gates = always};

/// Which cut of matmul_swap_cuda: of gated products the second-best estimate was the fastest on an
/// H200, at 8 to 32 rows (28672 x 4096).
int place_of(const Launch& launch) {
  return launch.attrs<Matmul>().gated ? 1 : 0;
}

/// Parts of the outputs whose squares are summed; 0 where they cannot be.
int parts_of(const Launch& launch) {
  return is_swapped(launch) ? matmul_swap_parts(launch) : matmul_split_parts(launch);
}

/// Rows of a tile: what a part's squares take.
int64_t square_rows(int64_t rows) {
  return rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= kSwapRows ? kSwapRows : kMostRows;
}

/// Whether `from` hands its outputs on to `to`, as norms go.
bool hands_on(const Launch& from, const Launch& to) {
  const auto& a = from.attrs<Matmul>();
  return to.attrs<Matmul>().normed() && to.in[0].data == from.out[0].data && !a.gated &&
         from.out[0].dtype == ir::DType::kBF16 && to.in.back().dtype == ir::DType::kF32 &&
         aligned_to_16(to.in.back().as<float>()) && from.out[0].dim(1) <= kMostCols &&
         parts_of(from) > 0 && parts_of(from) * square_rows(from.in[0].dim(0)) <= kMostSquares;
}

/// A launch whose x is normed already, or will be by the factors of its rows.
struct WithoutNorm {
  Matmul attributes;
  std::array<Tensor, 4> in;
  Launch launch;

  WithoutNorm(const Launch& of, void* x) : attributes(of.attrs<Matmul>()), launch(of) {
    std::ranges::copy(of.in.first(of.in.size() - 1), in.begin());
    in[0].data = x;
    attributes.norm = "none";
    launch.in = std::span(in).first(of.in.size() - 1);
    launch.attributes = &attributes;
  }
  WithoutNorm(const WithoutNorm&) = delete;
  WithoutNorm& operator=(const WithoutNorm&) = delete;
};

void run(const Launch& launch, const HandedNorm& norm) {
  if (is_swapped(launch)) {
    matmul_swap_handed_cuda(launch, place_of(launch), norm);
  } else {
    matmul_split_handed_cuda(launch, norm);
  }
}

}  // namespace

std::string matmul_series_cuda_why_not(const Launch& launch, const device::Properties& properties) {
  const int64_t rows = launch.in[0].dim(0);
  if (rows <= kFewRows || rows > kMostRows)
    return str("needs ", kFewRows + 1, " to ", kMostRows, " rows");
  if (launch.in[0].dtype != ir::DType::kBF16) return "x is not bf16";
  if (launch.out[0].dim(1) % 8 != 0) return "N is not a multiple of 8";
  return composed_why_not<kPlain>(launch, properties);
}

int64_t matmul_series_cuda_workspace(const Launch& launch, const device::Properties& properties) {
  const ComposedMatmul composed(launch, kPlain);
  return composed.bytes() + matmul_swap_cuda_workspace(composed.product(), properties);
}

void matmul_series_cuda(std::span<const Launch> launches) {
  if (launches[0].in[0].dim(0) == 0) return;
  Handed* const handed = handed_of(*launches[0].queue);
  HandedNorm norm;
  for (size_t i = 0; i < launches.size(); ++i) {
    const Launch& launch = launches[i];
    norm.scaled = nullptr;
    // Not while others still read what was handed to this launch.
    const bool hands = handed != nullptr && norm.x_squares == nullptr && i + 1 < launches.size() &&
                       hands_on(launch, launches[i + 1]);
    if (hands) {
      const auto& next = launches[i + 1].attrs<Matmul>();
      norm.scaled = handed->scaled;
      norm.squares = handed->squares;
      norm.weight = launches[i + 1].in.back().as<float>();
      norm.offset = static_cast<float>(next.norm_offset);
    }
    if (norm.x_squares != nullptr) {
      norm.eps = static_cast<float>(launch.attrs<Matmul>().norm_eps);
      run(WithoutNorm(launch, handed->scaled).launch, norm);
    } else {
      const ComposedMatmul composed(launch, kPlain);
      composed.begin();
      run(composed.product(), norm);
    }
    norm.x_squares = hands ? handed->squares : nullptr;
    norm.x_parts = hands ? parts_of(launch) : 0;
  }
}

}  // namespace millrace::ops
