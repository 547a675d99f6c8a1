// The plan section of an engine file: JSON text of everything but the graph, the assets' bytes and
// the weights.
#pragma once

#include <string>
#include <string_view>

#include "engine/plan.h"

namespace millrace::engine {

std::string plan_to_json(const Engine& engine, const std::vector<uint64_t>& chunk_hashes);

/// What the plan says about the other sections of the file.
struct PlanParts {
  std::vector<int64_t> asset_sizes;
  std::vector<uint64_t> chunk_hashes;
  uint64_t encoder_graph_offset = 0;  // in the graph section, when there is an encoder
};

/// Fills everything but the graphs and the assets' bytes (names are set). Throws Error (kBadInput)
/// on anything that does not fit; the contents are checked against each other by validate().
void plan_from_json(std::string_view text, Engine* engine, PlanParts* parts);

}  // namespace millrace::engine
