#include <vector>

#include "ops/attention_plan/attention_plan_tactics.h"

namespace millrace::ops {

using generation::kQuarters;
using generation::larger;
using generation::smaller;

void attention_plan_ref(const Launch& launch) {
  const PlanJob job(launch);
  const generation::Division& division = job.division;
  generation::Totals totals{};
  std::vector<unsigned> offsets = {0};
  for (int s = 0; s < job.lengths.sequences; ++s) {
    const generation::SequencePlan plan = plan_sequence(division, job.lengths, s);
    const auto units = static_cast<unsigned>(plan.units);
    totals.tiles += units * static_cast<unsigned>(plan.tiles);
    totals.units += units;
    totals.pieces += units * static_cast<unsigned>(plan.pieces);
    if (units > 0) {
      totals.longest_piece = larger(totals.longest_piece, smaller(plan.piece_tiles, plan.tiles));
    }
    offsets.push_back(totals.tiles);
  }
  const generation::Sharing sharing = choose_sharing(division, totals);
  for (unsigned block = 0; block < static_cast<unsigned>(division.blocks); ++block) {
    for (unsigned warp = 0; warp < unsigned{kQuarters}; ++warp) {
      job.items[block * kQuarters + warp] =
          make_item(division, job.lengths, offsets.data(), sharing,
                    sharer_of(division, sharing, block, warp));
    }
  }
}

}  // namespace millrace::ops
