// The ways to run rope_append, one per file.
#pragma once

#include "ops/op.h"

namespace millrace::ops {

void rope_append_ref(const Launch& launch);
void rope_append_avx2(const Launch& launch);
void rope_append_avx512(const Launch& launch);
void rope_append_cuda(const Launch& launch);

}  // namespace millrace::ops
