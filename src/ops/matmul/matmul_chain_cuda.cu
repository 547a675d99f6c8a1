// Products behind each other in one launch, up to 4 rows: those of a layer between two attentions.
//
// One block a multiprocessor goes through all products. One thread copies the block's share of the
// weights, in order, to a ring in shared memory; weights do not depend on anything, so it does not
// stop where one product ends and the next one waits for its x. Memory stays busy while eight warps
// finish a product, and wait for the new x.
//
//   copying thread   | o .... | gate, up .......................... | down ........ | Q, K, V |
//   other warps        | x | o ... |wait| x | gate, up .......... |wait| x | down ... |wait| ...
//
// Blocks take units of 8 weight rows (of a gated product, 8 of the gate and the same 8 of up). They
// claim them one by one, in order, from a counter: some multiprocessors get more of the memory's
// bandwidth than others. A stage of the ring is 1024 of K of 8 rows, two pieces of 64 for each
// warp. Tensor cores multiply 16 rows with 8 columns; here the rows are those of both pieces of the
// weight, the columns those of both pieces of up to 4 rows of x, and the products of different
// pieces do not count. 16 bytes of a lane are eight neighbours of K, of the weight and of x alike.
// When a unit is through, one of four further warps (by turns) adds the eight sums, and writes the
// outputs: the bits do not depend on who does what.
//
// Blocks wait for each other: all of them must be on the GPU at once, one on each multiprocessor.
// What comes out goes to the other blocks twice: as outputs, with a count of units, and, where it
// is the next x, element by element, so that no count has to be waited for.
#include <algorithm>
#include <array>
#include <atomic>

#include "base/str.h"
#include "device/cuda/tensor_map.h"
#include "ops/common/queue_number_cuda.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_chain_cuda.cuh"
#include "ops/matmul/matmul_chain_outputs_cuda.cuh"
#include "ops/matmul/matmul_chain_products_cuda.cuh"
#include "ops/matmul/matmul_cuda.h"

namespace millrace::ops {
namespace chain {
namespace {

constexpr const char* kName = "matmul_chain_cuda";
constexpr int kThreads = kWarps * kWarp;
constexpr int kExchanging = 8;  // the first queues; others tell by counters alone

__device__ Counters chain_counters[kNumberedQueues][2];
__device__ Exchange chain_exchanges[kExchanging];

/// One thread: claims units, and copies their weights, until there are none.
__device__ void copy_weights(const Chain& chain, const Memory& memory, Counters& counters) {
  const uint64_t policy = streamed_policy();
  unsigned* const claimed = &counters.claimed;
  Place place, landed;
  int until_full = min(kInFlight, chain.stages);
  int product = 0, before = 0;  // units of the products before
  auto claim = static_cast<int>(atomicAdd(claimed, 1U));
  while (true) {
    const Product& p = chain.products[product];
    const int unit = claim - before;
    if (unit >= p.units) {
      before += p.units;
      if (++product < chain.count) continue;
      break;
    }
    const int stages = p.stages();
    // The next claim is on its way while the last two stages are copied.
    const int claims_at = max(stages - 2, 0);
    for (int stage = 0; stage < stages; ++stage) {
      hopper::wait_barrier(memory.empty(place.slot), place.phase ^ 1);
      if (--until_full < 0) {  // no more than kInFlight are under way
        hopper::wait_barrier(memory.full(landed.slot), landed.phase);
        landed.advance(chain.stages);
      }
      if (stage == claims_at) claim = static_cast<int>(atomicAdd(claimed, 1U));
      memory.piece_of_stage(place.slot) = Piece{product, unit}.packed();
      hopper::arrive_expecting(memory.full(place.slot), kStageBytes);
      const int half = p.job.gated ? stage % 2 : 0;
      const int of_k = p.job.gated ? stage / 2 : stage;
      copy_stage(memory.stage(place.slot), p.weight, memory.full(place.slot), half, unit * kUnit,
                 of_k * kChunks, policy);
      place.advance(chain.stages);
    }
  }
  hopper::wait_barrier(memory.empty(place.slot), place.phase ^ 1);
  memory.piece_of_stage(place.slot) = Piece::kNone;
  hopper::arrive(memory.full(place.slot));
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    matmul_chain_kernel(const __grid_constant__ Chain chain) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  device::let_successor_start();
  const Memory memory{hopper::address_in_shared(bytes), chain.x_bytes, bytes};
  Counters& counters = chain_counters[chain.queue][chain.set];
  Exchange& exchange = chain_exchanges[chain.queue % kExchanging];
  if (threadIdx.x == kSumThreads) {
    for (int i = 0; i < chain.stages; ++i) {
      hopper::init_barrier(memory.full(i), 1);
      hopper::init_barrier(memory.empty(i), kMultiplying);
    }
    for (int turn = 0; turn < kFinishing; ++turn) {
      hopper::init_barrier(memory.started(turn), 1);
      hopper::init_barrier(memory.summed(turn), kMultiplying);
      hopper::init_barrier(memory.added(turn), 1);
    }
    hopper::init_barrier(memory.x_there(), 1);
    hopper::publish_barriers();
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (warp < kMultiplying) {
    Products<T>(chain, memory, counters, exchange).run();
  } else if (warp > kMultiplying) {
    Outputs(chain, memory, counters, exchange, warp - kMultiplying - 1).run();
  } else if (threadIdx.x % kWarp == 0) {
    copy_weights(chain, memory, counters);
  }
}

/// More than half of a multiprocessor's, so that no two blocks share one.
constexpr int kShared = 224 << 10;
constexpr int kMostX = 120 << 10;
/// Weight rows have numbers of 24 bits.
constexpr int64_t kMostUnits = (1 << 24) - 1;

/// Of x and the norm's weight in shared memory.
int64_t x_bytes_of(const Launch& launch) {
  const int64_t rows = launch.in[0].dim(0), depth = launch.in[0].dim(1);
  const bool normed = launch.attrs<Matmul>().normed();
  const int64_t norm = normed ? depth * ir::dtype_size(launch.in.back().dtype) : 0;
  return rows * (2 * depth + kXPadding) + norm;
}

CUtensorMap chain_map(const MatmulJob& job) {
  return device::make_tensor_map(job.weight,
                                 {kChunk, job.depth / kChunk, job.cols, job.gated ? 2 : 1},
                                 {kChunk, job.depth, job.cols * job.depth},
                                 {kChunk, kChunks, kUnit, 1}, device::Swizzle::k128Bytes);
}

/// Products whose `job` and `norm` are set, for the next launch of the queue.
void lay_out(Chain& chain, const device::Queue& queue) {
  chain.queue = queue_number(queue);
  static std::array<std::atomic<unsigned>, kNumberedQueues> launches{};
  chain.set = static_cast<int>(launches[static_cast<size_t>(chain.queue)].fetch_add(1) % 2);
  chain.exchanges = chain.queue < kExchanging;
  int64_t handed = 0;
  for (int i = 0; i < chain.count; ++i) {
    Product& product = chain.products[i];
    const MatmulJob& job = product.job;
    product.units = static_cast<int>(job.cols / kUnit);
    product.weight = chain_map(job);
    product.handed = -1;
    if (i + 1 == chain.count || !chain.exchanges) continue;
    const MatmulJob& next = chain.products[i + 1].job;
    const int64_t elements = job.rows * job.cols;
    if (next.x != job.out || next.depth != job.cols || next.x_type != job.out_type) continue;
    if (handed + elements > Exchange::kElements) continue;
    product.handed = static_cast<int>(handed);
    handed += elements;
  }
}

/// A launch that is cooperative has all its blocks on the GPU, or none; but it starts later, which
/// costs 2.5 us. One queue may do without: its launches follow each other, and no other launch
/// whose blocks wait for each other is ever there in part.
bool is_cooperative(const Chain& chain) {
  static const int alone = chain.queue;
  return chain.queue != alone;
}

template <typename T>
void run(const device::Queue& queue, const Chain& chain) {
  static const bool allowed = device::allow_shared(kName, matmul_chain_kernel<T>, kShared);
  CHECK(allowed);
  device::launch_placed(kName, queue, {.all_at_once = is_cooperative(chain)},
                        dim3(static_cast<unsigned>(device::multiprocessors())), dim3(kThreads),
                        kShared, matmul_chain_kernel<T>, chain);
}

}  // namespace
}  // namespace chain

std::string matmul_chain_cuda_why_not(const Launch& launch, const device::Properties& properties) {
  if (properties.sm != 90) return "the kernel is for compute capability 9.0";
  const Tensor& weight = launch.in[1];
  const int64_t rows = launch.in[0].dim(0), depth = weight.dim(1);
  if (rows > chain::kMaxRows) return str("more than ", chain::kMaxRows, " rows");
  if (depth % chain::kChunk != 0) return str("K is not a multiple of ", chain::kChunk);
  const int64_t cols = launch.out[0].dim(1);
  if (cols % chain::kUnit != 0) return str("N is not a multiple of ", chain::kUnit);
  if (cols / chain::kUnit > chain::kMostUnits) return "N is too large";
  if (chain::x_bytes_of(launch) > chain::kMostX) return "x is too large";
  return mma_cuda_why_not(launch);
}

void matmul_chain_cuda(std::span<const Launch> launches) {
  chain::Chain all;
  int64_t x_bytes = 0;
  for (const Launch& launch : launches) {
    chain::Product& product = all.products[all.count++];
    product.job = matmul_job(launch);
    product.norm = matmul_norm(launch);
    if (product.job.rows == 0) return;  // of all of them
    x_bytes = std::max(x_bytes, chain::x_bytes_of(launch));
  }
  constexpr int64_t kSwizzleGroup = 1024;
  all.x_bytes = static_cast<int>((x_bytes + kSwizzleGroup - 1) / kSwizzleGroup * kSwizzleGroup);
  all.stages = std::min(chain::kMaxStages,
                        (chain::kShared - chain::Memory::kX - all.x_bytes) / chain::kStageBytes);
  chain::lay_out(all, *launches[0].queue);
  if (all.products[0].job.x_type == ir::DType::kBF16) {
    chain::run<__nv_bfloat16>(*launches[0].queue, all);
  } else {
    chain::run<__half>(*launches[0].queue, all);
  }
}

}  // namespace millrace::ops
