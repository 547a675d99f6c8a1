// Feed-forward networks of decoders.
#pragma once

#include <string>

#include "nn/trace.h"

namespace millrace::nn {

/// Names of the layers below the scope.
struct GatedMlpNames {
  std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";
};

struct FusedMlpNames {
  std::string_view gate_up, down;
};

/// down(f(gate(x)) * up(x)): x [T, dim] through [T, ffn] -> [T, dim]. `activation` is a name that
/// activation() knows.
Value gated_mlp(const Scope& scope, Value x, int64_t ffn, const std::string& activation,
                bool bias = false, const GatedMlpNames& names = {});

/// The same with gate and up as the two halves of one layer, gate first.
Value fused_gated_mlp(const Scope& scope, Value x, int64_t ffn, const std::string& activation,
                      const FusedMlpNames& names, bool bias = false);

/// down(f(up(x))), the layers named below the scope.
Value mlp(const Scope& scope, Value x, int64_t ffn, const std::string& activation,
          std::string_view up, std::string_view down, bool bias = true);

}  // namespace millrace::nn
