#include "runtime/sampler.h"

#include <algorithm>

#include "base/check.h"
#include "ops/attributes.h"
#include "ops/common/sampling_row.h"
#include "ops/sample_logprobs/sample_logprobs.h"
#include "ops/sample_process/sample_process.h"
#include "ops/sample_prompt/sample_prompt.h"
#include "ops/sample_token/sample_token.h"

namespace millrace::runtime {
namespace {

int64_t aligned(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

ops::Tensor matrix(std::byte* data, ir::DType dtype, int64_t rows, int64_t columns) {
  const std::array<int64_t, 2> shape = {rows, columns};
  return {data, dtype, shape};
}

ops::Tensor vector(std::byte* data, ir::DType dtype, int64_t rows) {
  const std::array<int64_t, 1> shape = {rows};
  return {data, dtype, shape};
}

}  // namespace

Sampler::Sampler(const SamplerSizes& sizes, device::Device& device)
    : sizes_(sizes), device_(device) {
  const auto call = [](std::string_view name, const ir::Attrs& attrs) {
    const ops::Op* op = ops::find_op(name);
    CHECK(op != nullptr, "no op is called ", name);
    return Call{op, op->parse_attrs(attrs)};
  };
  prompt_ = call(ops::SamplePrompt::kName, {});
  process_ = call(ops::SampleProcess::kName, {});
  token_ = call(ops::SampleToken::kName, {});
  logprobs_ =
      call(ops::SampleLogprobs::kName, ops::to_attrs(ops::SampleLogprobs{.k = sizes.max_logprobs}));

  const int64_t rows = sizes.max_rows, logits = aligned(rows * sizes.vocab_size * 4);
  const int64_t column = aligned(rows * 4), top = aligned(rows * sizes.max_logprobs * 4);
  memory_ = device.allocate(logits + 3 * column + 2 * top, "sampler");
  adjusted_ = memory_->data();
  tokens_ = adjusted_ + logits;
  status_ = tokens_ + column;
  logprob_ = status_ + column;
  top_ids_ = logprob_ + column;
  top_logprobs_ = top_ids_ + top;

  const ops::Tensor x = matrix(nullptr, ir::DType::kF32, rows, sizes.vocab_size);
  const ops::Tensor records = matrix(nullptr, ir::DType::kI32, rows, ops::kSamplingRowWords);
  const ops::Tensor list = vector(nullptr, ir::DType::kI32, 1), column_of_ids = tokens(rows);
  reserve_scratch(process_, {x, records, list, sizes.history, x}, {x});
  reserve_scratch(token_, {sizes.history, x, x, records},
                  {sizes.history, column_of_ids, column_of_ids});
  reserve_scratch(logprobs_, {x, column_of_ids, column_of_ids},
                  {logprobs(rows), top_ids(rows), top_logprobs(rows)});
  scratch_ = device.allocate(std::max<int64_t>(scratch_bytes_, 64), "sampler scratch");
}

void Sampler::reserve_scratch(const Call& call, std::vector<ops::Tensor> in,
                              std::vector<ops::Tensor> out) {
  ops::Launch launch;
  launch.in = in;
  launch.out = out;
  launch.attributes = call.attributes.get();
  const ops::Tactic& tactic = choose(call, launch);
  if (tactic.workspace == nullptr) return;
  scratch_bytes_ = std::max(scratch_bytes_, tactic.workspace(launch, device_.properties()));
}

ops::Tensor Sampler::tokens(int64_t rows) const {
  return vector(tokens_, ir::DType::kI32, rows);
}
ops::Tensor Sampler::status(int64_t rows) const {
  return vector(status_, ir::DType::kI32, rows);
}
ops::Tensor Sampler::logprobs(int64_t rows) const {
  return vector(logprob_, ir::DType::kF32, rows);
}
ops::Tensor Sampler::top_ids(int64_t rows) const {
  return matrix(top_ids_, ir::DType::kI32, rows, sizes_.max_logprobs);
}
ops::Tensor Sampler::top_logprobs(int64_t rows) const {
  return matrix(top_logprobs_, ir::DType::kF32, rows, sizes_.max_logprobs);
}

void Sampler::append_prompts(ops::Tensor history, ops::Tensor ids, ops::Tensor segments) {
  run(prompt_, {history, ids, segments}, {history});
}

void Sampler::sample(ops::Tensor logits, const SamplerInputs& inputs) {
  const int64_t rows = logits.dim(0);
  ops::Tensor adjusted = logits;  // where nothing is adjusted, the raw logits serve for both
  if (inputs.adjusts) {
    adjusted.data = adjusted_;
    run(process_, {logits, inputs.rows, inputs.lists, inputs.history, adjusted}, {adjusted});
  }
  run(token_, {inputs.history, logits, adjusted, inputs.rows},
      {inputs.history, tokens(rows), status(rows)});
}

void Sampler::logprobs(ops::Tensor logits, ops::Tensor targets, ops::Tensor counts) {
  const int64_t rows = logits.dim(0);
  run(logprobs_, {logits, targets, counts}, {logprobs(rows), top_ids(rows), top_logprobs(rows)});
}

const ops::Tactic& Sampler::choose(const Call& call, const ops::Launch& launch) const {
  const device::Properties& device = device_.properties();
  for (const ops::Tactic& tactic : call.op->tactics) {
    if (tactic.device != device.kind) continue;
    if (tactic.why_not == nullptr || tactic.why_not(launch, device).empty()) return tactic;
  }
  CHECK(false, "no tactic for ", call.op->name);
  return call.op->tactics[0];
}

void Sampler::run(const Call& call, std::vector<ops::Tensor> in, std::vector<ops::Tensor> out) {
  ops::Launch launch;
  launch.in = in;
  launch.out = out;
  launch.attributes = call.attributes.get();
  launch.queue = &device_.queue();
  const ops::Tactic& tactic = choose(call, launch);
  if (tactic.workspace != nullptr) {
    DCHECK(tactic.workspace(launch, device_.properties()) <= scratch_bytes_);
    launch.workspace = scratch_->data();
  }
  tactic.run(launch);
}

}  // namespace millrace::runtime
