#include "ops/attention_context/attention_context.h"
#include "ops/attention_context/attention_context_tactics.h"
#include "ops/common/attention_ref.h"

namespace millrace::ops {

void attention_context_ref(const Launch& launch) {
  attend_ref(launch, AttentionShape::of(launch.attrs<AttentionContext>()), RequestType::kContext);
}

}  // namespace millrace::ops
