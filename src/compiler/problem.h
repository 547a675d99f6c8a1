// A node of the graph as an op sees it when sizes are known but no memory is: for choosing tactics,
// costs and workspaces.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "ops/op.h"

namespace millrace::compiler {

struct Problem {
  const ops::Op* op = nullptr;
  std::shared_ptr<const void> attributes;
  std::vector<ops::Tensor> in, out;  // without data
  std::string attrs_text;

  ops::Launch launch() const;
  /// `matmul{bias=true} f32[16, 384] bf16[1536, 384] f32[1536] -> f32[16, 1536]`: names it in the
  /// timing cache.
  std::string key() const;
  bool has_state() const;
};

/// The node with its symbols at these values.
Problem make_problem(const ir::Graph& graph, ir::NodeId node, const ir::Bindings& bindings);

/// The smallest step within `maxima` that has this many rows. Other symbols do not matter to how a
/// node is run. `symbol`: counts the node's rows, or "".
ir::Bindings sizes_of_rows(const ir::Bindings& maxima, const std::string& symbol, int64_t rows);

/// The symbol that counts a node's rows (dimension 0 of its first output that is not a state), or
/// "" when fixed.
std::string rows_symbol(const ir::Graph& graph, ir::NodeId node);

}  // namespace millrace::compiler
