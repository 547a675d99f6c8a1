// The ways to run rope_append, one per file.
#pragma once

#include "ops/op.h"

namespace millrace::ops {

void rope_append_ref(const Launch& launch);

}  // namespace millrace::ops
