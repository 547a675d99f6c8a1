#include <utility>

#include "ops/attention_plan/attention_plan.h"
#include "ops/harness/cases.h"
#include "ops/harness/kv_case.h"

namespace millrace::ops {
namespace {

constexpr RequestType kContext = RequestType::kContext, kGeneration = RequestType::kGeneration;

Case make(std::string name, const AttentionPlan& a, KvCaseSpec spec) {
  spec.kv_heads = a.kv_heads;
  spec.k_size = spec.v_size = a.head_size;
  const KvCase layout(spec);
  const int64_t s = layout.num_sequences();
  return {.name = std::move(name),
          .attrs = to_attrs(a),
          .inputs = {ids({layout.rows()}, 100), ints({s}, layout.sequence_length),
                     ints({s}, layout.query_start), ints({s}, layout.query_length),
                     on_host(ints({s}, layout.request_type))}};
}

KvCaseSpec alike(int past, size_t count) {
  return {.sequences = std::vector<KvCaseSequence>(count, {past, 1, kGeneration})};
}

KvCaseSpec ragged() {
  return {.sequences = {{0, 5, kContext},
                        {70, 2, kContext},
                        {0, 1, kGeneration},
                        {9000, 1, kGeneration},
                        {255, 1, kGeneration},
                        {31, 4, kGeneration},
                        {5, 0, kGeneration},
                        {254, 9, kGeneration},
                        {0, 0, kGeneration}},
          .row_gap = 3};
}

}  // namespace

std::vector<Case> attention_plan_cases() {
  const AttentionPlan llama = {.heads = 32, .kv_heads = 8, .head_size = 128};
  AttentionPlan gemma = llama, sinks = llama, split = llama;
  gemma = {.heads = 8, .kv_heads = 1, .head_size = 256, .window = 100};
  sinks.window = 300;
  sinks.sink_tokens = 20;
  split.splits = 5;
  KvCaseSpec verify{.sequences = {{40, 4, kGeneration}, {900, 4, kGeneration}}};
  Case timed = make("32 x 384 of 8B", llama, alike(383, 32));
  timed.benchmark = true;
  return {
      make("ragged", llama, ragged()),
      make("one short sequence", llama, alike(383, 1)),
      make("one long sequence", llama, alike(131071, 1)),
      make("a unit for each block", llama, alike(383, 128)),
      make("as many sequences as there may be", llama, alike(20, 1024)),
      make("no tokens", llama, {.sequences = {{7, 0, kGeneration}, {0, 0, kGeneration}}}),
      make("prompts only", llama, {.sequences = {{0, 5, kContext}}}),
      make("several tokens", llama, std::move(verify)),
      make("window, heads of 256", gemma, ragged()),
      make("window and sinks", sinks, ragged()),
      make("given pieces", split, ragged()),
      std::move(timed),
  };
}

}  // namespace millrace::ops
