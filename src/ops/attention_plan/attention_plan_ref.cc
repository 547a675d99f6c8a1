#include <vector>

#include "ops/attention_plan/attention_plan_tactics.h"

namespace millrace::ops {

void attention_plan_ref(const Launch& launch) {
  const PlanJob job(launch);
  const generation::Division& division = job.division;
  generation::Totals totals{};
  std::vector<unsigned> offsets = {0};
  for (int s = 0; s < job.lengths.sequences; ++s) {
    totals.add(plan_sequence(division, job.lengths, s));
    offsets.push_back(totals.tiles);
  }
  const int unit_blocks = has_unit_blocks(division, totals) ? 1 : 0;
  for (unsigned block = 0; block < static_cast<unsigned>(division.blocks); ++block) {
    generation::WorkItem& item = job.items[block];
    item = make_item(division, job.lengths, offsets.data(), sharer_of(division, block));
    item.unit_blocks = unit_blocks;
    item.one_token = totals.most_tokens <= 1 ? 1 : 0;
  }
}

}  // namespace millrace::ops
