// The plan section of an engine file: JSON text of everything but the graph, the assets' bytes and
// the weights.
#pragma once

#include <string>
#include <string_view>

#include "engine/plan.h"

namespace millrace::engine {

std::string plan_to_json(const Engine& engine, const std::vector<uint64_t>& chunk_hashes);

/// Fills everything but the graph and the assets' bytes (names and sizes are set). Throws Error
/// (kBadInput) on anything that does not fit; the contents are checked against each other by
/// validate().
void plan_from_json(std::string_view text, Engine* engine, std::vector<int64_t>* asset_sizes,
                    std::vector<uint64_t>* chunk_hashes);

}  // namespace millrace::engine
