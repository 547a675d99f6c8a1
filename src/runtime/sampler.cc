#include "runtime/sampler.h"

#include "ops/attributes.h"
#include "ops/common/sampling_row.h"
#include "ops/sample_logprobs/sample_logprobs.h"
#include "ops/sample_process/sample_process.h"
#include "ops/sample_prompt/sample_prompt.h"
#include "ops/sample_token/sample_token.h"

namespace millrace::runtime {

Sampler::Sampler(const SamplerSizes& sizes, device::Device& device)
    : sizes_(sizes),
      device_(device),
      calls_(device),
      prompt_(ops::SamplePrompt::kName),
      process_(ops::SampleProcess::kName),
      token_(ops::SampleToken::kName),
      logprobs_(ops::SampleLogprobs::kName,
                ops::to_attrs(ops::SampleLogprobs{.k = sizes.max_logprobs})) {
  const int64_t rows = sizes.max_rows;
  memory_bytes_ = aligned_bytes(rows * sizes.vocab_size * 4) + 3 * aligned_bytes(rows * 4) +
                  2 * aligned_bytes(rows * sizes.max_logprobs * 4);
  const ops::Tensor x = matrix_at(nullptr, ir::DType::kF32, rows, sizes.vocab_size);
  const ops::Tensor records = matrix_at(nullptr, ir::DType::kI32, rows, ops::kSamplingRowWords);
  const ops::Tensor list = vector_at(nullptr, ir::DType::kI32, 1), column_of_ids = tokens(rows);
  calls_.reserve(process_, {x, records, list, sizes.history, x}, {x});
  calls_.reserve(token_, {sizes.history, x, x, records},
                 {sizes.history, column_of_ids, column_of_ids});
  calls_.reserve(logprobs_, {x, column_of_ids, column_of_ids},
                 {logprobs(rows), top_ids(rows), top_logprobs(rows)});
}

void Sampler::allocate() {
  const int64_t rows = sizes_.max_rows, column = aligned_bytes(rows * 4);
  memory_ = device_.allocate(memory_bytes_, "sampler");
  adjusted_ = memory_->data();
  tokens_ = adjusted_ + aligned_bytes(rows * sizes_.vocab_size * 4);
  status_ = tokens_ + column;
  logprob_ = status_ + column;
  top_ids_ = logprob_ + column;
  top_logprobs_ = top_ids_ + aligned_bytes(rows * sizes_.max_logprobs * 4);
  calls_.allocate();
}

ops::Tensor Sampler::tokens(int64_t rows) const {
  return vector_at(tokens_, ir::DType::kI32, rows);
}
ops::Tensor Sampler::status(int64_t rows) const {
  return vector_at(status_, ir::DType::kI32, rows);
}
ops::Tensor Sampler::logprobs(int64_t rows) const {
  return vector_at(logprob_, ir::DType::kF32, rows);
}
ops::Tensor Sampler::top_ids(int64_t rows) const {
  return matrix_at(top_ids_, ir::DType::kI32, rows, sizes_.max_logprobs);
}
ops::Tensor Sampler::top_logprobs(int64_t rows) const {
  return matrix_at(top_logprobs_, ir::DType::kF32, rows, sizes_.max_logprobs);
}

void Sampler::append_prompts(ops::Tensor history, ops::Tensor ids, ops::Tensor segments) {
  calls_.run(prompt_, {history, ids, segments}, {history});
}

void Sampler::sample(ops::Tensor logits, const SamplerInputs& inputs) {
  const int64_t rows = logits.dim(0);
  ops::Tensor adjusted = logits;  // where nothing is adjusted, the raw logits serve for both
  if (inputs.adjusts) {
    adjusted.data = adjusted_;
    calls_.run(process_, {logits, inputs.rows, inputs.lists, inputs.history, adjusted}, {adjusted});
    if (inputs.on_adjusted) inputs.on_adjusted(adjusted);
  }
  calls_.run(token_, {inputs.history, logits, adjusted, inputs.rows},
             {inputs.history, tokens(rows), status(rows)});
}

void Sampler::logprobs(ops::Tensor logits, ops::Tensor targets, ops::Tensor counts) {
  const int64_t rows = logits.dim(0);
  calls_.run(logprobs_, {logits, targets, counts},
             {logprobs(rows), top_ids(rows), top_logprobs(rows)});
}

}  // namespace millrace::runtime
