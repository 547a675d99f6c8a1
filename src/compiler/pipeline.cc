#include "compiler/pipeline.h"

#include "compiler/passes/passes.h"

namespace millrace::compiler {

const std::vector<Pass>& pipeline() {
  static const std::vector<Pass> passes = {
      // 1. The same meaning in one form.
      {"canonicalize", canonicalize},
      {"remove_dead", remove_dead},
      // 2. Less work: rows that get no logits stop after the last attention.
      {"gather_last_tokens", gather_last_tokens},
      // 3. Fewer and larger launches.
      {"merge_qkv", merge_qkv},
      {"merge_gate_up", merge_gate_up},
      {"fuse_activation", fuse_activation},
      {.name = "fuse_gated_matmul", .run = fuse_gated_matmul, .cuda_only = true},
      // Before sums that no product can add become a part of the norm.
      {.name = "fuse_residual", .run = fuse_residual, .cuda_only = true},
      {"fuse_add_norm", fuse_add_norm},
      {.name = "fuse_norm", .run = fuse_norm, .cuda_only = true},
      {"fold_constants", fold_constants, true},
      // 4. Only ops that have tactics.
      {"lower_attention", lower_attention, true},
      {.name = "fuse_rope", .run = fuse_rope, .cuda_only = true},
      {.name = "plan_attention", .run = plan_attention, .cuda_only = true},
      {.name = "bf16_products", .run = bf16_products, .rounds_x = true},
      {"final_order", canonicalize, true},
  };
  return passes;
}

}  // namespace millrace::compiler
