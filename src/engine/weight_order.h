// Which of an engine's weights each weight node of its graphs is.
#pragma once

#include <utility>
#include <vector>

#include "engine/plan.h"

namespace millrace::engine {

struct WeightOrder {
  // Indices into Engine::weights, by the weight nodes of a graph in their order.
  std::vector<size_t> graph;    // 0, 1, 2, ...
  std::vector<size_t> encoder;  // shared with the graph's where the nodes are equal, else new ones
  // By index into Engine::weights: the first node that is this weight.
  std::vector<std::pair<const ir::Graph*, ir::NodeId>> nodes;
};

/// The result points into `engine`.
WeightOrder weight_order(const Engine& engine);

}  // namespace millrace::engine
