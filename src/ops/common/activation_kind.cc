#include "ops/common/activation_kind.h"

#include <utility>

namespace millrace::ops {

std::optional<ActivationKind> parse_activation(std::string_view name) {
  constexpr std::pair<std::string_view, ActivationKind> kNames[] = {
      {"", ActivationKind::kNone},
      {"none", ActivationKind::kNone},
      {"silu", ActivationKind::kSilu},
      {"swish", ActivationKind::kSilu},
      {"gelu", ActivationKind::kGelu},
      {"gelu_python", ActivationKind::kGelu},
      {"gelu_new", ActivationKind::kGeluTanh},
      {"gelu_pytorch_tanh", ActivationKind::kGeluTanh},
      {"gelu_fast", ActivationKind::kGeluTanh},
      {"relu", ActivationKind::kRelu},
      {"relu2", ActivationKind::kRelu2},
      {"quick_gelu", ActivationKind::kQuickGelu},
  };
  for (const auto& [known, kind] : kNames) {
    if (name == known) return kind;
  }
  return std::nullopt;
}

}  // namespace millrace::ops
