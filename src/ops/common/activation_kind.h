// The activation functions, by the names that config.json files use.
#pragma once

#include <cmath>
#include <optional>
#include <string_view>

namespace millrace::ops {

enum class ActivationKind {
  kNone,
  kSilu,      // x / (1 + exp(-x)); also "swish"
  kGelu,      // x/2 (1 + erf(x / sqrt 2))
  kGeluTanh,  // the tanh approximation: "gelu_new", "gelu_pytorch_tanh", "gelu_fast"
  kRelu,
};

/// Empty for a name that is none of them. "" and "none" are kNone.
std::optional<ActivationKind> parse_activation(std::string_view name);

/// The definition, in float arithmetic.
inline float apply_activation(ActivationKind kind, float x) {
  switch (kind) {
    case ActivationKind::kNone:
      return x;
    case ActivationKind::kSilu:
      return x / (1.0f + std::exp(-x));
    case ActivationKind::kGelu:
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case ActivationKind::kGeluTanh:
      return 0.5f * x * (1.0f + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case ActivationKind::kRelu:
      return x > 0 ? x : 0.0f;
  }
  return x;
}

}  // namespace millrace::ops
