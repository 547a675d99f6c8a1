// The cases of products with a gate or a norm, apart from those of plain ones.
#pragma once

#include <vector>

#include "ops/harness/cases.h"

namespace millrace::ops {

void add_fused_cases(std::vector<Case>* cases);

}  // namespace millrace::ops
