// A warp for each token. Choices are compared in double, as on the CPU, so that no rounding decides
// between experts.
#include <cmath>

#include "ops/common/cuda_kernel.cuh"
#include "ops/moe_route/moe_route.h"

namespace millrace::ops {
namespace {

constexpr int kWarps = 4;  // of a block
constexpr unsigned kAllLanes = 0xffffffffu;

struct RouteJob {
  const float* logits;  // [T, E]
  const void* bias;     // [E] or null
  int32_t* ids;         // [T, k]
  float* weights;       // [T, k]
  int64_t rows;
  int experts, chosen, groups, kept_groups;
  bool sigmoid, normalise, top2;
  double scale;
};

__device__ double score_of(const RouteJob& job, float logit, float largest) {
  return job.sigmoid ? 1.0 / (1.0 + exp(-static_cast<double>(logit)))
                     : exp(static_cast<double>(logit) - static_cast<double>(largest));
}

__device__ double group_score(const RouteJob& job, const double* choices, int size) {
  double first = -INFINITY, second = -INFINITY;
  for (int i = 0; i < size; ++i) {
    second = fmax(second, fmin(first, choices[i]));
    first = fmax(first, choices[i]);
  }
  return job.top2 ? first + second : first;
}

/// A lane for each group: all but the best are left out. Of equal groups the lower one is better.
__device__ void drop_groups(const RouteJob& job, double* choices) {
  const int lane = threadIdx.x % kWarp;
  const int size = job.experts / job.groups;
  const double mine = lane < job.groups ? group_score(job, choices + lane * size, size) : 0;
  int before = 0;
  for (int group = 0; group < job.groups; ++group) {
    const double other = __shfl_sync(kAllLanes, mine, group);
    before += other > mine || (other == mine && group < lane) ? 1 : 0;
  }
  __syncwarp();
  if (lane < job.groups && before >= job.kept_groups) {
    for (int i = 0; i < size; ++i)
      choices[lane * size + i] = -INFINITY;
  }
  __syncwarp();
}

/// The best expert that is left, the lower id of equal ones; the same in all lanes. The first where
/// none is a number: rows that belong to no sequence may hold anything.
__device__ int best_expert(const RouteJob& job, const double* choices) {
  double value = -INFINITY;
  int best = job.experts;
  for (int e = threadIdx.x % kWarp; e < job.experts; e += kWarp) {
    if (choices[e] > value) {
      value = choices[e];
      best = e;
    }
  }
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const double other_value = __shfl_xor_sync(kAllLanes, value, step);
    const int other = __shfl_xor_sync(kAllLanes, best, step);
    if (other_value > value || (other_value == value && other < best)) {
      value = other_value;
      best = other;
    }
  }
  return best < job.experts ? best : 0;
}

/// What the scores of the chosen experts are divided by, unless they are normalised.
__device__ double sum_of_scores(const RouteJob& job, const float* logits, float largest) {
  if (job.sigmoid) return 1;
  double sum = 0;
  for (int e = threadIdx.x % kWarp; e < job.experts; e += kWarp)
    sum += score_of(job, logits[e], largest);
  for (int step = kWarp / 2; step > 0; step /= 2)
    sum += __shfl_xor_sync(kAllLanes, sum, step);
  return sum;
}

template <typename B>
__global__ void __launch_bounds__(kWarps* kWarp)
    moe_route_kernel(const __grid_constant__ RouteJob job) {
  extern __shared__ double shared[];  // [kWarps, E]
  device::let_successor_start();
  device::wait_for_predecessor();
  const int lane = threadIdx.x % kWarp;
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (row >= job.rows) return;
  const float* logits = job.logits + row * job.experts;
  double* choices = shared + threadIdx.x / kWarp * job.experts;
  float largest = -INFINITY;
  for (int e = lane; e < job.experts; e += kWarp) {
    // Softmax keeps the order of the logits, which need no rounding.
    double choice = job.sigmoid ? score_of(job, logits[e], 0) : static_cast<double>(logits[e]);
    if (job.bias != nullptr) choice += to_float(static_cast<const B*>(job.bias)[e]);
    choices[e] = choice;
    largest = fmaxf(largest, logits[e]);
  }
  largest = warp_max(largest);
  __syncwarp();
  if (job.kept_groups < job.groups) drop_groups(job, choices);
  double chosen_scores = 0;
  for (int j = 0; j < job.chosen; ++j) {
    const int best = best_expert(job, choices);
    chosen_scores += score_of(job, logits[best], largest);
    __syncwarp();
    if (lane == 0) {
      choices[best] = -INFINITY;
      job.ids[row * job.chosen + j] = best;
    }
    __syncwarp();
  }
  const double total = job.normalise ? chosen_scores : sum_of_scores(job, logits, largest);
  for (int j = lane; j < job.chosen; j += kWarp) {
    const float logit = logits[job.ids[row * job.chosen + j]];
    job.weights[row * job.chosen + j] =
        static_cast<float>(job.scale * score_of(job, logit, largest) / total);
  }
}

}  // namespace

void moe_route_cuda(const Launch& launch) {
  const auto& a = launch.attrs<MoeRoute>();
  const Tensor& logits = launch.in[0];
  if (logits.dim(0) == 0) return;
  const RouteJob job{.logits = logits.as<float>(),
                     .bias = a.bias ? launch.in[1].data : nullptr,
                     .ids = launch.out[0].as<int32_t>(),
                     .weights = launch.out[1].as<float>(),
                     .rows = logits.dim(0),
                     .experts = static_cast<int>(logits.dim(1)),
                     .chosen = a.experts_per_token,
                     .groups = a.groups,
                     .kept_groups = a.kept_groups,
                     .sigmoid = a.scores == "sigmoid",
                     .normalise = a.normalise,
                     .top2 = a.group_score == "top2",
                     .scale = a.scale};
  static_assert(kWarps * kMaxExperts * sizeof(double) <= 48 << 10);
  static_assert(kMaxExpertGroups <= kWarp);
  with_float_type(a.bias ? launch.in[1].dtype : ir::DType::kF32, [&]<typename B>(B) {
    device::launch_kernel("moe_route_cuda", *launch.queue,
                          dim3(static_cast<unsigned>((job.rows + kWarps - 1) / kWarps)),
                          dim3(kWarps * kWarp), sizeof(double) * kWarps * job.experts,
                          moe_route_kernel<B>, job);
  });
}

}  // namespace millrace::ops
