#include "models/rope_common.h"

namespace millrace::models {

ops::RopeAngles rope_options(const HfConfig& config, int64_t head_dim, const RopeDefaults& defaults,
                             std::string_view layer_type) {
  const RopeConfig rope = read_rope_config(config, head_dim, defaults, layer_type);
  return {.rotary_dim = static_cast<int>(rope.rotary_dim),
          .theta = rope.theta,
          .rule = rope.rule,
          .factor = rope.factor,
          .original_max_position = rope.original_max_position,
          .max_position = rope.max_position,
          .attention_factor = rope.attention_factor,
          .low_freq_factor = rope.low_freq_factor,
          .high_freq_factor = rope.high_freq_factor,
          .beta_fast = rope.beta_fast,
          .beta_slow = rope.beta_slow,
          .mscale = rope.mscale,
          .mscale_all_dim = rope.mscale_all_dim,
          .truncate = rope.truncate,
          .short_factor = rope.short_factor,
          .long_factor = rope.long_factor};
}

ops::RopeAngles sliding_rope_options(const HfConfig& config, int64_t head_dim, double theta) {
  const bool by_type = config.is_object("rope_parameters") &&
                       config.object("rope_parameters").is_object("sliding_attention");
  if (by_type) return rope_options(config, head_dim, {.theta = theta}, "sliding_attention");
  return {.rotary_dim = static_cast<int>(head_dim), .theta = theta};
}

int64_t rope_positions(const ops::RopeAngles& rope, int64_t max_positions) {
  if (rope.rule != "dynamic") return max_positions;
  return static_cast<int64_t>(rope.factor * static_cast<double>(max_positions));
}

}  // namespace millrace::models
