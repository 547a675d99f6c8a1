// The ways to run attention_plan, one per file.
#pragma once

#include "ops/common/generation_work.h"
#include "ops/op.h"

namespace millrace::ops {

void attention_plan_ref(const Launch& launch);
void attention_plan_cuda(const Launch& launch);

/// What a launch divides.
struct PlanJob {
  generation::Division division;
  generation::Lengths lengths;
  generation::WorkItem* items;

  explicit PlanJob(const Launch& launch);
};

}  // namespace millrace::ops
