#include "ops/cross_append/cross_append.h"

#include "base/error.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/kv_cache_view.h"
#include "ops/common/sequence_rows.h"
#include "ops/cross_append/cross_append_inputs.h"

namespace millrace::ops {
namespace {

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "cross_append_cuda",
                      .device = device::Kind::kCuda,
                      .run = cross_append_cuda}, )  //
    {.name = "cross_append_ref", .run = cross_append_ref},
};

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<CrossAppend>(attrs);
  if (in.size() != kNumAppendInputs) {
    throw_bad_input(str("expected ", int{kNumAppendInputs}, " inputs, got ", in.size()));
  }
  check_heads(a.kv_heads, a.kv_heads, a.head_size, a.v_head_size);
  check_rows(in[kAppendK], int64_t{a.kv_heads} * a.head_size, "k");
  check_rows(in[kAppendV], int64_t{a.kv_heads} * a.v_head_size, "v");
  constexpr const char* kNames[] = {"query_start", "query_length", "kv_cache_block_offsets"};
  for (size_t i = kAppendStart; i <= kAppendBlocks; ++i) {
    const size_t rank = i == kAppendBlocks ? 3 : 1;
    if (in[i].dtype != ir::DType::kI32 || in[i].shape.size() != rank) {
      throw_bad_input(str(kNames[i - kAppendStart], " must be i32 of rank ", rank, ", got ",
                          ir::to_string(in[i])));
    }
  }
  if (in[kAppendCache].dtype != ir::DType::kState) {
    throw_bad_input(str("the KV cache must be a state, got ", ir::to_string(in[kAppendCache])));
  }
  return {in[kAppendCache]};
}

Cost cost(const Launch& launch) {
  const auto* cache = launch.in[kAppendCache].as<KvCacheView>();
  const Tensor &k = launch.in[kAppendK], &v = launch.in[kAppendV];
  const int64_t stored = ir::dtype_size(cache != nullptr ? cache->dtype : k.dtype);
  return {.bytes = static_cast<double>(k.bytes() + v.bytes() + (k.count() + v.count()) * stored)};
}

}  // namespace

const Op& op_cross_append() {
  static const Op op = {.name = "cross_append",
                        .tactics = kTactics,
                        .infer = infer,
                        .parse_attrs = parse_attrs<CrossAppend>,
                        .cost = cost};
  return op;
}

}  // namespace millrace::ops
