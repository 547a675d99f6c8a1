// The order of the passes.
#pragma once

#include <vector>

#include "compiler/pass.h"

namespace millrace::compiler {

/// From a traced graph to one whose every op has tactics.
const std::vector<Pass>& pipeline();

}  // namespace millrace::compiler
