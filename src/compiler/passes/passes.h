// The passes, one file each. Every file opens with what it rewrites; testdata/NAME.ir shows it and
// tests it.
#pragma once

#include "ir/graph.h"

namespace millrace::compiler {

void canonicalize(ir::Graph& graph);
void remove_dead(ir::Graph& graph);
void fold_constants(ir::Graph& graph);
void merge_qkv(ir::Graph& graph);
void merge_gate_up(ir::Graph& graph);
void fuse_activation(ir::Graph& graph);
void fuse_gated_matmul(ir::Graph& graph);
void fuse_residual(ir::Graph& graph);
void fuse_add_norm(ir::Graph& graph);
void fuse_norm(ir::Graph& graph);
void gather_last_tokens(ir::Graph& graph);
void lower_attention(ir::Graph& graph);
void bf16_products(ir::Graph& graph);
void fuse_rope(ir::Graph& graph);
void plan_attention(ir::Graph& graph);

}  // namespace millrace::compiler
