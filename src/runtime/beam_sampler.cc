#include "runtime/beam_sampler.h"

#include "ops/beam_reorder/beam_reorder.h"
#include "ops/beam_step/beam_step.h"
#include "ops/common/beam_row.h"
#include "ops/log_softmax/log_softmax.h"
#include "ops/sample_process/sample_process.h"

namespace millrace::runtime {

using enum ir::DType;

namespace {

int64_t places_bytes(const BeamSizes& sizes) {
  return aligned_bytes(sizes.max_requests * 2 * sizes.beams * 4);
}

}  // namespace

BeamSampler::BeamSampler(const BeamSizes& sizes, device::Device& device)
    : sizes_(sizes),
      device_(device),
      calls_(device),
      log_softmax_(ops::LogSoftmax::kName),
      process_(ops::SampleProcess::kName),
      step_(ops::BeamStep::kName, ops::to_attrs(ops::BeamStep{.beams = sizes.beams})),
      reorder_(ops::BeamReorder::kName, ops::to_attrs(ops::BeamReorder{.beams = sizes.beams})) {
  memory_bytes_ = 2 * aligned_bytes(sizes.max_rows * sizes.vocab_size * 4) +
                  aligned_bytes(sizes.max_slots * 4) + 3 * places_bytes(sizes) +
                  aligned_bytes(sizes.max_requests * 4);
  const int64_t rows = sizes.max_rows, requests = sizes.max_requests;
  const ops::Tensor x = matrix_at(nullptr, kF32, rows, sizes.vocab_size);
  const ops::Tensor records = matrix_at(nullptr, kI32, rows, ops::kSamplingRowWords);
  const ops::Tensor beams = matrix_at(nullptr, kI32, requests, ops::kBeamRowWords);
  const ops::Tensor list = vector_at(nullptr, kI32, 1);
  const ops::Tensor history = matrix_at(nullptr, kI32, sizes.tables.dim(1), sizes.tables.dim(2));
  const ops::Tensor by_slot = vector_at(nullptr, kF32, sizes.max_slots);
  calls_.reserve(log_softmax_, {x}, {x});
  calls_.reserve(process_, {x, records, list, history, x}, {x});
  calls_.reserve(
      step_, {by_slot, x, x, records, beams, list},
      {by_slot, chosen(requests), parents(requests), tokens(requests), status(requests)});
  calls_.reserve(reorder_, {sizes.tables, beams, parents(requests), tokens(requests)},
                 {sizes.tables});
}

void BeamSampler::allocate() {
  const int64_t logits = aligned_bytes(sizes_.max_rows * sizes_.vocab_size * 4);
  const int64_t places = places_bytes(sizes_);
  memory_ = device_.allocate(memory_bytes_, "beams");
  log_probs_ = memory_->data();
  adjusted_ = log_probs_ + logits;
  scores_ = adjusted_ + logits;
  chosen_ = scores_ + aligned_bytes(sizes_.max_slots * 4);
  parents_ = chosen_ + places;
  tokens_ = parents_ + places;
  status_ = tokens_ + places;
  calls_.allocate();
}

ops::Tensor BeamSampler::chosen(int64_t requests) const {
  return matrix_at(chosen_, kF32, requests, 2 * sizes_.beams);
}
ops::Tensor BeamSampler::parents(int64_t requests) const {
  return matrix_at(parents_, kI32, requests, 2 * sizes_.beams);
}
ops::Tensor BeamSampler::tokens(int64_t requests) const {
  return matrix_at(tokens_, kI32, requests, 2 * sizes_.beams);
}
ops::Tensor BeamSampler::status(int64_t requests) const {
  return vector_at(status_, kI32, requests);
}

void BeamSampler::choose(ops::Tensor logits, const SamplerInputs& inputs, ops::Tensor beams) {
  const int64_t rows = logits.dim(0), requests = beams.dim(0);
  const ops::Tensor log_probs = matrix_at(log_probs_, kF32, rows, sizes_.vocab_size);
  const ops::Tensor adjusted = matrix_at(adjusted_, kF32, rows, sizes_.vocab_size);
  const ops::Tensor scores = vector_at(scores_, kF32, sizes_.max_slots);
  calls_.run(log_softmax_, {logits}, {log_probs});
  if (inputs.adjusts) {
    calls_.run(process_, {log_probs, inputs.rows, inputs.lists, inputs.history, adjusted},
               {adjusted});
    if (inputs.on_adjusted) inputs.on_adjusted(adjusted);
  }
  calls_.run(step_, {scores, log_probs, adjusted, inputs.rows, beams, inputs.lists},
             {scores, chosen(requests), parents(requests), tokens(requests), status(requests)});
  calls_.run(reorder_, {sizes_.tables, beams, parents(requests), tokens(requests)},
             {sizes_.tables});
}

}  // namespace millrace::runtime
