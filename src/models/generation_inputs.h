// The inputs that every decoder shares.
#pragma once

#include "models/model.h"

namespace millrace::models {

/// Declares input_ids [T], token_history [R, N], position_ids [T], last_token_ids [L],
/// context_lengths [S], the sequence inputs of attention and, when beams are on, its beam inputs
/// (ops/common/sequence_inputs.h), and one `kv_cache.I` state a layer, whose attributes say its
/// shape and group. Their meaning: docs/architecture.md, "A step's inputs".
nn::StepInputs prepare_basic_inputs(nn::Trace& trace, const std::vector<KvLayer>& layers,
                                    const InputLimits& limits);

}  // namespace millrace::models
