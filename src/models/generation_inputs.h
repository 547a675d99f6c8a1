// The inputs that every decoder shares.
#pragma once

#include "models/model.h"

namespace millrace::models {

/// Declares input_ids [T], token_history [R, N], position_ids [T], last_token_ids [L],
/// context_lengths [S], the sequence inputs of attention (ops/common/sequence_inputs.h) and one
/// `kv_cache.I` state a layer, whose attributes say its shape and group. Their meaning:
/// docs/architecture.md, "A step's inputs".
nn::StepInputs prepare_basic_inputs(nn::Trace& trace, const std::vector<KvLayer>& layers,
                                    const InputLimits& limits);

/// The encoder's: input_ids [T] (or input_features f32 [F, bins], F = 2T), position_ids [T],
/// query_start and query_length [S], kv_cache_block_offsets [groups, S, M] and one
/// `cross_kv_cache.I` state for each layer with `cross`, groups as above.
nn::EncoderInputs prepare_encoder_inputs(nn::Trace& trace, const std::vector<KvLayer>& layers,
                                         const EncoderShape& shape, const InputLimits& limits);

}  // namespace millrace::models
