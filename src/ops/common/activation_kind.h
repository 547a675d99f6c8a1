// The activation functions, by the names that config.json files use.
#pragma once

#include <cmath>
#include <concepts>
#include <optional>
#include <string_view>
#include <vector>

namespace millrace::ops {

enum class ActivationKind {
  kNone,
  kSilu,      // x / (1 + exp(-x)); also "swish"
  kGelu,      // x/2 (1 + erf(x / sqrt 2))
  kGeluTanh,  // the tanh approximation: "gelu_new", "gelu_pytorch_tanh", "gelu_fast"
  kRelu,
  kRelu2,      // relu(x)^2
  kQuickGelu,  // x / (1 + exp(-1.702 x))
};

/// Empty for a name that is none of them. "" and "none" are kNone.
std::optional<ActivationKind> parse_activation(std::string_view name);

/// All names but "" and "none".
std::vector<std::string_view> activation_names();

/// The definition, in the arithmetic of F: float in kernels, double to check them.
template <std::floating_point F>
F apply_activation(ActivationKind kind, F x) {
  switch (kind) {
    case ActivationKind::kNone:
      return x;
    case ActivationKind::kSilu:
      return x / (1 + std::exp(-x));
    case ActivationKind::kGelu:
      return F(0.5) * x * (1 + std::erf(x * F(0.70710678118654752)));
    case ActivationKind::kGeluTanh:
      return F(0.5) * x * (1 + std::tanh(F(0.79788456080286536) * (x + F(0.044715) * x * x * x)));
    case ActivationKind::kRelu:
      return x > 0 ? x : F(0);
    case ActivationKind::kRelu2:
      return x > 0 ? x * x : F(0);
    case ActivationKind::kQuickGelu:
      return x / (1 + std::exp(F(-1.702) * x));
  }
  return x;
}

}  // namespace millrace::ops
