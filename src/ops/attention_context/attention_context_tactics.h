// The ways to run attention_context, one per file.
#pragma once

#include "ops/op.h"

namespace millrace::ops {

void attention_context_ref(const Launch& launch);
void attention_context_avx2(const Launch& launch);
void attention_context_avx512(const Launch& launch);
void attention_context_cuda(const Launch& launch);

}  // namespace millrace::ops
