#include <algorithm>
#include <cmath>

#include "base/thread_pool.h"
#include "ops/rope_angles/rope_angles_tactics.h"

namespace millrace::ops {
namespace {

enum Input { kPositionIds, kContextLengths, kQueryStart, kQueryLength };
constexpr int64_t kRowsPerTask = 16;

/// The angle is a float, as in transformers; its cosine and sine are rounded once from double,
/// since float ones lose digits at large angles.
void write_row(int32_t position, const RopeFrequencies& frequencies, float* out) {
  const size_t half = frequencies.inv_freq.size();
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<float>(position) * frequencies.inv_freq[i];
    out[i] = static_cast<float>(std::cos(angle)) * frequencies.attention_scaling;
    out[half + i] = static_cast<float>(std::sin(angle)) * frequencies.attention_scaling;
  }
}

}  // namespace

void rope_angles_ref(const Launch& launch) {
  const auto& plan = static_cast<const RopeAnglesPlan&>(launch.attrs<RopeAngles>());
  const auto* positions = launch.in[kPositionIds].as<int32_t>();
  for (int64_t s = 0; s < launch.in[kContextLengths].dim(0); ++s) {
    const int64_t first = launch.in[kQueryStart].as<int32_t>()[s];
    const int64_t prompt = std::max(launch.in[kContextLengths].as<int32_t>()[s], 1);
    RopeFrequencies made;
    const RopeFrequencies& frequencies = plan.frequencies(prompt, &made);
    launch.pool().parallel_ranges(
        launch.in[kQueryLength].as<int32_t>()[s], kRowsPerTask, [&](int64_t begin, int64_t end) {
          for (int64_t t = first + begin; t < first + end; ++t) {
            write_row(positions[t], frequencies, launch.out[0].as<float>() + t * plan.rotary_dim);
          }
        });
  }
}

}  // namespace millrace::ops
