// Rotary positions as model files say them: from config.json's words to the op.
#pragma once

#include <string_view>

#include "checkpoint/hf_config.h"
#include "nn/attention_layer.h"

namespace millrace::models {

/// The attributes of rope_angles that the config asks for. `layer_type` chooses where they differ
/// by kind of layer.
ops::RopeAngles rope_options(const HfConfig& config, int64_t head_dim,
                             const RopeDefaults& defaults = {}, std::string_view layer_type = "");

/// RoPE of the layers that look back through a window, where it may be another: their own
/// parameters if they have any, else unscaled with `theta`.
ops::RopeAngles sliding_rope_options(const HfConfig& config, int64_t head_dim, double theta);

/// The longest sequence: max_position_embeddings, or beyond it where the rule (dynamic) is made for
/// that.
int64_t rope_positions(const ops::RopeAngles& rope, int64_t max_positions);

}  // namespace millrace::models
