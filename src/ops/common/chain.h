// Which consecutive launches run_chain (Tactic) takes at once. The compiler asks before it times
// them, the runtime before it runs them.
#pragma once

#include <algorithm>
#include <span>

#include "ops/op.h"

namespace millrace::ops {

/// A launch as far as that matters: how it would be run, and on how many rows.
struct ChainLink {
  const Tactic* tactic = nullptr;  // null: not in a chain
  int64_t rows = 0;
  bool operator==(const ChainLink&) const = default;
};

/// How many of these launches go as one: the first, and those behind it that are run alike, on as
/// many rows. REQUIRES: at least one.
inline size_t chain_length(std::span<const ChainLink> launches) {
  const ChainLink& first = launches[0];
  if (first.tactic == nullptr || first.tactic->run_chain == nullptr) return 1;
  const auto most = launches.first(std::min(launches.size(), size_t{kMaxChain}));
  const auto other = [&](const ChainLink& link) { return link != first; };
  return static_cast<size_t>(std::ranges::find_if(most, other) - most.begin());
}

}  // namespace millrace::ops
