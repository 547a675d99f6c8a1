#include "ops/common/activation_kind.h"

#include <utility>

namespace millrace::ops {

namespace {

constexpr std::pair<std::string_view, ActivationKind> kNames[] = {
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

}  // namespace

std::vector<std::string_view> activation_names() {
  std::vector<std::string_view> names;
  for (const auto& [name, kind] : kNames)
    names.push_back(name);
  return names;
}

std::optional<ActivationKind> parse_activation(std::string_view name) {
  if (name.empty() || name == "none") return ActivationKind::kNone;
  for (const auto& [known, kind] : kNames) {
    if (name == known) return kind;
  }
  return std::nullopt;
}

}  // namespace millrace::ops
