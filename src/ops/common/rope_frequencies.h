// Inverse frequencies of rotary position embeddings under every scaling rule, with the arithmetic
// of transformers: fp32 where it has tensors, fp64 where it has Python numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace millrace::ops {

enum class RopeRule {
  kDefault,   // theta^(-2i/R)
  kLinear,    // ... / factor
  kDynamic,   // a larger theta for prompts longer than max_position (NTK)
  kLlama3,    // long wavelengths divided by factor, short ones kept, smooth in between
  kYarn,      // as llama3, with a ramp over the dimensions, and scaled cosines and sines
  kLongRope,  // one factor per frequency, another set beyond original_max_position
  kNtkSteps,  // a larger theta for prompts up to twice, four times ... max_position (Qwen)
};

/// "default", "linear", "dynamic", "llama3", "yarn", "longrope", "ntk_steps"; empty for another
/// name.
std::optional<RopeRule> parse_rope_rule(std::string_view name);
const char* rope_rule_name(RopeRule rule);

struct RopeScaling {
  RopeRule rule = RopeRule::kDefault;
  int64_t rotary_dim = 0;  // R
  double theta = 10000;
  double factor = 1;                      // linear, dynamic, llama3, yarn, longrope
  double max_position = 0;                // dynamic: max_position_embeddings; ntk_steps
  double original_max_position = 0;       // llama3, yarn, longrope
  double attention_factor = 0;            // yarn, longrope; 0: by the rule's formula
  double low_freq_factor = 1;             // llama3
  double high_freq_factor = 4;            // llama3
  double beta_fast = 32, beta_slow = 1;   // yarn
  double mscale = 0, mscale_all_dim = 0;  // yarn; 0: not given
  bool truncate = true;                   // yarn
  std::vector<double> short_factor = {};  // longrope, [R/2]
  std::vector<double> long_factor = {};   // longrope, [R/2]
};

struct RopeFrequencies {
  std::vector<float> inv_freq;  // [ceil(R/2)]
  float attention_scaling = 1;  // multiplies cosines and sines
};

/// `prompt_length` is the full length of the sequence's prompt; only dynamic, longrope and
/// ntk_steps look at it. REQUIRES: the parameters of the rule are given; the factor lists have R/2
/// entries.
RopeFrequencies rope_frequencies(const RopeScaling& scaling, int64_t prompt_length);

/// Prompts with the same value share their frequencies; 0 for every prompt unless the rule depends
/// on length.
int64_t rope_variant(const RopeScaling& scaling, int64_t prompt_length);

}  // namespace millrace::ops
