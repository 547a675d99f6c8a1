#include "ops/attention_generation/attention_generation.h"
#include "ops/attention_generation/attention_generation_tactics.h"
#include "ops/common/attention_ref.h"

namespace millrace::ops {

void attention_generation_ref(const Launch& launch) {
  attend_ref(launch, AttentionShape::of(launch.attrs<AttentionGeneration>()),
             RequestType::kGeneration);
}

}  // namespace millrace::ops
