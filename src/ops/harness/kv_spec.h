// Steps that the cases of several ops begin with.
#pragma once

#include "ops/harness/kv_case.h"

namespace millrace::ops {

inline KvCaseSpec stored_as(KvCaseSpec spec, ir::DType dtype, int tokens_per_block) {
  spec.dtype = dtype;
  spec.tokens_per_block = tokens_per_block;
  return spec;
}

/// One plane of latents and rotated keys (mla_append, mla_attention).
inline KvCaseSpec of_latents(KvCaseSpec spec, int latent_size, int rope_size) {
  spec.k_size = latent_size + rope_size;
  spec.v_size = 0;
  return spec;
}

/// Ragged sequences of both phases, with rows between them that none owns.
inline KvCaseSpec append_step() {
  return {.sequences = {{0, 21, RequestType::kContext},
                        {7, 5, RequestType::kContext},
                        {3, 0, RequestType::kContext},
                        {16, 1, RequestType::kGeneration},
                        {47, 2, RequestType::kGeneration}},
          .row_gap = 2};
}

}  // namespace millrace::ops
