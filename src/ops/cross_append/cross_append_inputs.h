// The inputs of cross_append by name, and its tactics.
#pragma once

#include "ops/cross_append/cross_append.h"
#include "ops/op.h"

namespace millrace::ops {

enum CrossAppendInput {
  kAppendK,
  kAppendV,
  kAppendStart,
  kAppendLength,
  kAppendBlocks,
  kAppendCache,
  kNumAppendInputs,
};

void cross_append_ref(const Launch& launch);
void cross_append_cuda(const Launch& launch);

}  // namespace millrace::ops
