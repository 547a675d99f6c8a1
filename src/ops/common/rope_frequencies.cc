#include "ops/common/rope_frequencies.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/check.h"

namespace millrace::ops {
namespace {

constexpr std::array<std::pair<const char*, RopeRule>, 7> kRules = {{
    {"default", RopeRule::kDefault},
    {"linear", RopeRule::kLinear},
    {"dynamic", RopeRule::kDynamic},
    {"llama3", RopeRule::kLlama3},
    {"yarn", RopeRule::kYarn},
    {"longrope", RopeRule::kLongRope},
    {"ntk_steps", RopeRule::kNtkSteps},
}};

/// fp32 power, rounded once: the libraries behind fp32 tensors differ from it, and from each other,
/// in the last bit.
float power(float base, float exponent) {
  return static_cast<float>(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
}

/// theta^(2i/R), [R/2].
std::vector<float> wave_numbers(float theta, int64_t rotary_dim) {
  std::vector<float> out(static_cast<size_t>((rotary_dim + 1) / 2));
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = power(theta, static_cast<float>(2 * i) / static_cast<float>(rotary_dim));
  }
  return out;
}

/// theta^(-2i/R), [R/2].
std::vector<float> default_frequencies(float theta, int64_t rotary_dim) {
  std::vector<float> out = wave_numbers(theta, rotary_dim);
  for (float& value : out)
    value = 1.0f / value;
  return out;
}

float dynamic_theta(const RopeScaling& s, int64_t prompt_length) {
  const double exponent = static_cast<double>(s.rotary_dim) / static_cast<double>(s.rotary_dim - 2);
  if (static_cast<double>(prompt_length) <= s.max_position) {
    // The frequencies that a model is created with: Python numbers, at a length of max_position.
    const double stretch = s.factor * s.max_position / s.max_position - (s.factor - 1);
    return static_cast<float>(s.theta * std::pow(stretch, exponent));
  }
  // A prompt's length is a tensor there, so everything is fp32.
  const float stretch = static_cast<float>(s.factor) * static_cast<float>(prompt_length) /
                            static_cast<float>(s.max_position) -
                        static_cast<float>(s.factor - 1);
  return static_cast<float>(s.theta) * power(stretch, static_cast<float>(exponent));
}

/// 1 up to max_position, then 3 up to twice as much, 7 up to four times ...
int64_t ntk_alpha(const RopeScaling& s, int64_t prompt_length) {
  int64_t alpha = 1;
  for (double end = s.max_position; static_cast<double>(prompt_length) > end; end *= 2)
    alpha = 2 * alpha + 1;
  return alpha;
}

float ntk_theta(const RopeScaling& s, int64_t prompt_length) {
  const auto size = static_cast<double>(s.rotary_dim);
  return static_cast<float>(
      s.theta * std::pow(static_cast<double>(ntk_alpha(s, prompt_length)), size / (size - 2)));
}

void scale_llama3(const RopeScaling& s, std::vector<float>* inv_freq) {
  const auto factor = static_cast<float>(s.factor);
  const auto original = static_cast<float>(s.original_max_position);
  const auto longest = static_cast<float>(s.original_max_position / s.low_freq_factor);
  const auto shortest = static_cast<float>(s.original_max_position / s.high_freq_factor);
  const auto low = static_cast<float>(s.low_freq_factor);
  const auto width = static_cast<float>(s.high_freq_factor - s.low_freq_factor);
  for (float& f : *inv_freq) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / f;
    if (wavelength > longest) {
      f = f / factor;
    } else if (!(wavelength < shortest)) {
      const float smooth = (original / wavelength - low) / width;
      f = (1.0f - smooth) * f / factor + smooth * f;
    }
  }
}

/// The dimension, as a real number, whose wave turns `rotations` times within the original context.
double correction_dim(const RopeScaling& s, double rotations) {
  return static_cast<double>(s.rotary_dim) *
         std::log(s.original_max_position / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(s.theta));
}

std::vector<float> yarn_frequencies(const RopeScaling& s) {
  double low = correction_dim(s, s.beta_fast);
  double high = correction_dim(s, s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(s.rotary_dim - 1));
  if (low == high) high += 0.001;  // the ramp needs a width
  std::vector<float> out = wave_numbers(static_cast<float>(s.theta), s.rotary_dim);
  for (size_t i = 0; i < out.size(); ++i) {
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    const float keep = 1.0f - ramp;
    const float extrapolated = 1.0f / out[i];
    const float interpolated = 1.0f / (static_cast<float>(s.factor) * out[i]);
    out[i] = interpolated * (1.0f - keep) + extrapolated * keep;
  }
  return out;
}

double yarn_attention_factor(const RopeScaling& s) {
  if (s.attention_factor != 0) return s.attention_factor;
  const auto scale = [&](double m) {
    return s.factor <= 1 ? 1.0 : 0.1 * m * std::log(s.factor) + 1.0;
  };
  if (s.mscale != 0 && s.mscale_all_dim != 0) return scale(s.mscale) / scale(s.mscale_all_dim);
  return scale(1);
}

std::vector<float> longrope_frequencies(const RopeScaling& s, int64_t prompt_length) {
  const bool is_long = rope_variant(s, prompt_length) == 1;
  const std::vector<double>& factors = is_long ? s.long_factor : s.short_factor;
  std::vector<float> out = wave_numbers(static_cast<float>(s.theta), s.rotary_dim);
  CHECK(factors.size() == out.size(), "longrope needs one factor per frequency");
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = 1.0f / (static_cast<float>(factors[i]) * out[i]);
  }
  return out;
}

double longrope_attention_factor(const RopeScaling& s) {
  if (s.attention_factor != 0) return s.attention_factor;
  if (s.factor <= 1) return 1;
  return std::sqrt(1 + std::log(s.factor) / std::log(s.original_max_position));
}

}  // namespace

std::optional<RopeRule> parse_rope_rule(std::string_view name) {
  for (const auto& [known, rule] : kRules) {
    if (name == known) return rule;
  }
  return std::nullopt;
}

const char* rope_rule_name(RopeRule rule) {
  return kRules[static_cast<size_t>(rule)].first;
}

RopeFrequencies rope_frequencies(const RopeScaling& scaling, int64_t prompt_length) {
  CHECK(scaling.rotary_dim > 0);
  const auto theta = static_cast<float>(scaling.theta);
  RopeFrequencies out;
  switch (scaling.rule) {
    case RopeRule::kDefault:
      out.inv_freq = default_frequencies(theta, scaling.rotary_dim);
      break;
    case RopeRule::kLinear:
      out.inv_freq = default_frequencies(theta, scaling.rotary_dim);
      for (float& f : out.inv_freq)
        f /= static_cast<float>(scaling.factor);
      break;
    case RopeRule::kDynamic:
      out.inv_freq = default_frequencies(dynamic_theta(scaling, prompt_length), scaling.rotary_dim);
      break;
    case RopeRule::kLlama3:
      out.inv_freq = default_frequencies(theta, scaling.rotary_dim);
      scale_llama3(scaling, &out.inv_freq);
      break;
    case RopeRule::kYarn:
      out.inv_freq = yarn_frequencies(scaling);
      out.attention_scaling = static_cast<float>(yarn_attention_factor(scaling));
      break;
    case RopeRule::kLongRope:
      out.inv_freq = longrope_frequencies(scaling, prompt_length);
      out.attention_scaling = static_cast<float>(longrope_attention_factor(scaling));
      break;
    case RopeRule::kNtkSteps:
      out.inv_freq = default_frequencies(ntk_theta(scaling, prompt_length), scaling.rotary_dim);
      break;
  }
  return out;
}

int64_t rope_variant(const RopeScaling& scaling, int64_t prompt_length) {
  const auto length = static_cast<double>(prompt_length);
  if (scaling.rule == RopeRule::kLongRope) return length > scaling.original_max_position ? 1 : 0;
  if (scaling.rule == RopeRule::kDynamic) return length > scaling.max_position ? prompt_length : 0;
  if (scaling.rule == RopeRule::kNtkSteps) return ntk_alpha(scaling, prompt_length);
  return 0;
}

}  // namespace millrace::ops
