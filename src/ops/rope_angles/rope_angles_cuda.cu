#include <algorithm>

#include "ops/common/row_owner_cuda.cuh"
#include "ops/rope_angles/rope_angles_tactics.h"

namespace millrace::ops {
namespace {

enum Input { kPositionIds, kContextLengths, kQueryStart, kQueryLength };
constexpr int kThreads = 128;

struct AnglesArgs {
  const int32_t* positions;        // [T]
  const int32_t* context_lengths;  // [S]
  const int32_t* query_start;      // [S]
  const int32_t* query_length;     // [S]
  float* out;                      // [T, 2 * half]
  int sequences, half;
  bool is_dynamic;  // prompts longer than `limit` have a theta of their own,
  bool has_steps;   // or one of their step,
  double limit;     // the others, or all, `usual`;
  bool has_longer;  // or they have `longer`
  float scaling, longer_scaling;
  float theta = 0, factor = 0, factor_less_one = 0, exponent = 0;  // dynamic
  double step_theta = 0, step_exponent = 0;                        // ntk_steps
  float usual[kMaxCudaFrequencies] = {}, longer[kMaxCudaFrequencies] = {};
};

/// fp32 power, rounded once (ops/common/rope_frequencies.cc).
__device__ float power(float base, float exponent) {
  return static_cast<float>(pow(static_cast<double>(base), static_cast<double>(exponent)));
}

/// 1 / theta^(2i/R).
__device__ float frequency_of(const AnglesArgs& a, float theta, int i) {
  const float exponent = __fdiv_rn(static_cast<float>(2 * i), static_cast<float>(2 * a.half));
  return __fdiv_rn(1.0F, power(theta, exponent));
}

/// Rule dynamic beyond its limit, as rope_frequencies() computes it, operation by operation.
__device__ float dynamic_frequency(const AnglesArgs& a, int prompt, int i) {
  const float scaled =
      __fdiv_rn(__fmul_rn(a.factor, static_cast<float>(prompt)), static_cast<float>(a.limit));
  const float stretch = __fsub_rn(scaled, a.factor_less_one);
  return frequency_of(a, __fmul_rn(a.theta, power(stretch, a.exponent)), i);
}

/// Rule ntk_steps beyond its limit, as rope_frequencies() computes it.
__device__ float step_frequency(const AnglesArgs& a, int prompt, int i) {
  int64_t alpha = 1;
  for (double end = a.limit; prompt > end; end *= 2)
    alpha = 2 * alpha + 1;
  const double stretch = pow(static_cast<double>(alpha), a.step_exponent);
  return frequency_of(a, static_cast<float>(__dmul_rn(a.step_theta, stretch)), i);
}

/// One block to a row.
__global__ void __launch_bounds__(kThreads)
    rope_angles_kernel(const __grid_constant__ AnglesArgs a) {
  __shared__ int scratch;
  device::wait_for_predecessor();
  device::let_successor_start();
  const int64_t row = blockIdx.x;
  const int sequence = find_owner(a.query_start, a.query_length, a.sequences, row, &scratch);
  if (sequence < 0) return;
  const int prompt = max(a.context_lengths[sequence], 1);
  const auto position = static_cast<float>(a.positions[row]);
  const bool beyond = static_cast<double>(prompt) > a.limit;
  const bool longer = a.has_longer && beyond;
  const float scaling = longer ? a.longer_scaling : a.scaling;
  float* out = a.out + row * a.half * 2;
  for (int i = static_cast<int>(threadIdx.x); i < a.half; i += kThreads) {
    float frequency = longer ? a.longer[i] : a.usual[i];
    if (a.is_dynamic && beyond) frequency = dynamic_frequency(a, prompt, i);
    if (a.has_steps && beyond) frequency = step_frequency(a, prompt, i);
    // A product of floats; float functions would lose digits at large angles.
    const double angle = __fmul_rn(position, frequency);
    double sine, cosine;
    sincos(angle, &sine, &cosine);
    out[i] = static_cast<float>(cosine) * scaling;
    out[a.half + i] = static_cast<float>(sine) * scaling;
  }
}

}  // namespace

void rope_angles_cuda(const Launch& launch) {
  const auto& plan = static_cast<const RopeAnglesPlan&>(launch.attrs<RopeAngles>());
  const RopeScaling& s = plan.scaling;
  const int64_t rows = launch.out[0].dim(0);
  if (rows == 0) return;
  AnglesArgs a{.positions = launch.in[kPositionIds].as<int32_t>(),
               .context_lengths = launch.in[kContextLengths].as<int32_t>(),
               .query_start = launch.in[kQueryStart].as<int32_t>(),
               .query_length = launch.in[kQueryLength].as<int32_t>(),
               .out = launch.out[0].as<float>(),
               .sequences = static_cast<int>(launch.in[kContextLengths].dim(0)),
               .half = plan.rotary_dim / 2,
               .is_dynamic = s.rule == RopeRule::kDynamic,
               .has_steps = s.rule == RopeRule::kNtkSteps,
               .limit = s.rule == RopeRule::kLongRope ? s.original_max_position : s.max_position,
               .has_longer = s.rule == RopeRule::kLongRope,
               .scaling = plan.usual.attention_scaling,
               .longer_scaling = plan.longer.attention_scaling};
  std::copy(plan.usual.inv_freq.begin(), plan.usual.inv_freq.end(), a.usual);
  std::copy(plan.longer.inv_freq.begin(), plan.longer.inv_freq.end(), a.longer);
  if (a.is_dynamic) {
    a.theta = static_cast<float>(s.theta);
    a.factor = static_cast<float>(s.factor);
    a.exponent = static_cast<float>(static_cast<double>(s.rotary_dim) /
                                    static_cast<double>(s.rotary_dim - 2));
    a.factor_less_one = static_cast<float>(s.factor - 1);
  }
  a.step_theta = s.theta;
  a.step_exponent = static_cast<double>(s.rotary_dim) / static_cast<double>(s.rotary_dim - 2);
  device::launch_kernel("rope_angles_cuda", *launch.queue, static_cast<unsigned>(rows), kThreads, 0,
                        rope_angles_kernel, a);
}

}  // namespace millrace::ops
