// Harness cases of both attention ops.
#pragma once

#include <string>

#include "ops/common/attention_ref.h"
#include "ops/harness/cases.h"
#include "ops/harness/kv_case.h"

namespace millrace::ops {

/// `spec` with the head counts and sizes, window and sinks of `shape`.
KvCaseSpec with_heads(KvCaseSpec spec, const AttentionShape& shape);

/// The attributes of either op.
ir::Attrs attention_attrs(const AttentionShape& shape);

/// q, the sequence inputs and the cache, the rows that the op adds to if it `has_out`, and what the
/// attributes ask for besides. Logits are a few units apart, so that softmax is peaked:
/// their products, of up to 100 and summed in float, leave 3e-6 of the result.
Case attention_case(std::string name, const AttentionShape& shape, const KvCaseSpec& spec,
                    ir::DType q = ir::DType::kF32, bool has_out = false);

}  // namespace millrace::ops
