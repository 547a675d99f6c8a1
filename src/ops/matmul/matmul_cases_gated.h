// The cases of gated products, apart from those of plain ones.
#pragma once

#include <vector>

#include "ops/harness/cases.h"

namespace millrace::ops {

void add_gated_cases(std::vector<Case>* cases);

}  // namespace millrace::ops
