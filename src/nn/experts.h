// Mixture of experts as model files say it.
#pragma once

#include <string>
#include <string_view>

#include "nn/trace.h"
#include "ops/moe_route/moe_route.h"

namespace millrace::nn {

/// The experts of each row, i32 [T, k], and how much each counts, f32 [T, k].
struct Routing {
  Value ids, weights;
};

/// x [T, dim] times `weight` [experts, dim] below the scope, plus `bias` [experts] if `bias`: in
/// f32 whatever the activation type -> [T, experts].
Value router_logits(const Scope& scope, Value x, int64_t experts, bool bias = false);

/// Chooses from logits [T, experts]. `bias` [experts], when attributes.bias.
Routing route(const ops::MoeRoute& attributes, Value logits, Value bias = {});

/// Experts that are gated feed-forward networks, each with tensors of its own: `0.gate_proj.weight`
/// [ffn, dim] and so on below the scope.
struct GatedExperts {
  int64_t experts = 0, ffn = 0;
  std::string activation = "silu";
  std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";
};

/// The weighted sum over each row's experts of down(f(gate(x)) * up(x)) -> [T, dim].
Value gated_experts(const Scope& scope, Value x, const Routing& routing,
                    const GatedExperts& experts);

/// Experts in the manner of gpt-oss, stacked in one tensor [experts, in, out] a layer:
/// `gate_up_proj` whose columns alternate, `down_proj`, and a `..._bias` of each.
struct ClampedExperts {
  int64_t experts = 0, ffn = 0;
  double alpha = 0, limit = 0;  // of clamped_swiglu
};

Value clamped_experts(const Scope& scope, Value x, const Routing& routing,
                      const ClampedExperts& experts);

/// y [T, N] times the sigmoid of logits [T, 1].
Value sigmoid_gate(Value y, Value logits);

}  // namespace millrace::nn
