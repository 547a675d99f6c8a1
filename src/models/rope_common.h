// Rotary positions as model files say them: from config.json's words to the op.
#pragma once

#include <string_view>

#include "checkpoint/hf_config.h"
#include "nn/attention_layer.h"

namespace millrace::models {

/// The attributes of rope_angles that the config asks for. `layer_type` chooses where they differ
/// by kind of layer.
ops::RopeAngles rope_options(const HfConfig& config, int64_t head_dim,
                             std::string_view layer_type = "", double default_theta = 10000);

}  // namespace millrace::models
