// What the Gemma models share.
#pragma once

#include "nn/trace.h"

namespace millrace::models {

/// Rows of `weight` [vocab, dim] below the scope by id, times sqrt(dim) as transformers has it: in
/// the type that the model runs in (bf16 makes 55.5 of 55.4256) -> [T, dim].
nn::Value gemma_embedding(const nn::Scope& scope, nn::Value ids, int64_t vocab, int64_t dim);

}  // namespace millrace::models
