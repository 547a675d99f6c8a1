// attention_plan: who does what in the attention of generated tokens, found once a step for all
// layers of a kind. CUDA only: pass plan_attention adds it.
//
//   rows: any tensor whose first dimension is the step's T; sequence_length, query_start,
//   query_length, host_request_types: i32 [S]
//   -> plan: i32 [W, 24], one line for each block of the kernel that attends, of those
//   that run at once (ops/common/generation_work.h: WorkItem)
//
// The attributes are those of attention_generation that say how its work may be divided.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct AttentionPlan {
  static constexpr std::string_view kName = "attention_plan";
  int heads = 0;
  int kv_heads = 0;
  int head_size = 0;
  int window = 0;
  int sink_tokens = 0;
  int splits = 0;
  bool operator==(const AttentionPlan&) const = default;
  static constexpr auto fields() {
    using A = AttentionPlan;
    return std::tuple{Field{"heads", &A::heads},
                      Field{"kv_heads", &A::kv_heads},
                      Field{"head_size", &A::head_size},
                      Field{"window", &A::window},
                      Field{"sink_tokens", &A::sink_tokens},
                      Field{"splits", &A::splits}};
  }
};

}  // namespace millrace::ops
