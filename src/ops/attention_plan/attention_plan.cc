#include "ops/attention_plan/attention_plan.h"

#include "base/error.h"
#include "ops/attention_plan/attention_plan_tactics.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/generation_division.h"
#include "ops/common/sequence_rows.h"
#include "ops/common/shape_rule.h"

namespace millrace::ops {
namespace {

enum PlanInput { kRows, kLength, kStart, kQueries, kTypes };

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "attention_plan_cuda",
                      .device = device::Kind::kCuda,
                      .run = attention_plan_cuda}, ){.name = "attention_plan_ref",
                                                     .run = attention_plan_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const auto a = from_attrs<AttentionPlan>(attrs);
  check_heads(a.heads, a.kv_heads, a.head_size, a.head_size);
  if (!generation::has_kernel(a.head_size)) {
    throw_bad_input(str("head_size must be 64, 80, 96, 128 or 256, got ", a.head_size));
  }
  if (a.window < 0 || a.sink_tokens < 0 || a.splits < 0 || a.splits > generation::kMaxPieces) {
    throw_bad_input(str("window and sink_tokens must not be negative, splits must be 0 to ",
                        generation::kMaxPieces));
  }
  const ShapeRule in(
      "attention_plan", types,
      {"rows", "sequence_length", "query_start", "query_length", "host_request_types"});
  in.expect_min_rank(kRows, 1);
  in.expect_rank(kLength, 1);
  for (const int input : {int{kLength}, int{kStart}, int{kQueries}, int{kTypes}}) {
    in.expect_dtype(input, ir::DType::kI32);
    in.expect_shape(input, {in.dim(kLength, 0)});
  }
  return {{ir::DType::kI32,
           {int64_t{generation::plan_items(a.head_size)}, int64_t{generation::kItemWords}}}};
}

Cost cost(const Launch& launch) {
  return {.bytes = static_cast<double>(launch.out[0].bytes() + 3 * launch.in[kLength].bytes())};
}

}  // namespace

PlanJob::PlanJob(const Launch& launch) : items(launch.out[0].as<generation::WorkItem>()) {
  const auto& a = launch.attrs<AttentionPlan>();
  const int64_t sequences = launch.in[kLength].dim(0);
  const auto* types = launch.in[kTypes].as<int32_t>();
  lengths = {.sequence_length = launch.in[kLength].as<int32_t>(),
             .query_start = launch.in[kStart].as<int32_t>(),
             .query_length = launch.in[kQueries].as<int32_t>(),
             .first = 0,
             .sequences = 0};
  while (lengths.first < sequences &&
         types[lengths.first] == static_cast<int32_t>(RequestType::kContext)) {
    ++lengths.first;
  }
  lengths.sequences = static_cast<int>(sequences) - lengths.first;
  division = generation::division_of(
      generation::DividedHeads::of(a),
      generation::choose_kind(launch.in[kRows].dim(0), lengths, a.heads / a.kv_heads));
}

const Op& op_attention_plan() {
  static const Op op = {.name = "attention_plan",
                        .tactics = kTactics,
                        .infer = infer,
                        .parse_attrs = parse_attrs<AttentionPlan>,
                        .cost = cost,
                        .phase = Phase::kGeneration};
  return op;
}

}  // namespace millrace::ops
