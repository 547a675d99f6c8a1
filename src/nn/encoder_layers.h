// Attention over all rows of an input, and from a decoder to what the encoder made of it.
#pragma once

#include "nn/step_inputs.h"
#include "ops/attention_cross/attention_cross.h"
#include "ops/attention_encoder/attention_encoder.h"
#include "ops/cross_append/cross_append.h"

namespace millrace::nn {

/// Which rows of a step belong to which sequence: i32 [S] each.
struct RowOwners {
  Value query_start, query_length;
};
RowOwners owners(const EncoderInputs& inputs);
/// Of encoder-only models, which have the inputs of decoders.
RowOwners owners(const StepInputs& step);

/// q [T, H*D], k [T, G*D], v [T, G*Dv] -> [T, H*Dv]. `bias`: [buckets, H] when
/// attributes.relative_buckets > 0.
Value encoder_attention(const ops::AttentionEncoder& attributes, Value q, Value k, Value v,
                        const RowOwners& rows, Value bias = {});

/// q [T, H*D] -> [T, H*Dv], over what cross_append stored for this decoder layer. `cache` is its
/// index in step.kv_caches.
Value cross_attention(const ops::AttentionCross& attributes, Value q, const StepInputs& step,
                      size_t cache);

/// k [T, G*D], v [T, G*Dv] of the encoder's rows -> the cache of this decoder layer, which
/// forward_encoder returns.
Value cross_append(const ops::CrossAppend& attributes, Value k, Value v,
                   const EncoderInputs& inputs, size_t layer);

/// A convolution of width 3 over the frames of each sequence, as a product over unfolded frames: x
/// [F, C] -> [F, out]. With `positions` i32 [T] only every second frame: [T, out]. `weight` [out,
/// C, 3] and `bias` below the scope.
Value conv_frames(const Scope& scope, Value x, int64_t out, const RowOwners& rows,
                  Value positions = {});

/// Sines and cosines of positions i32 [T] -> [T, dim] in the activation type.
Value sinusoid(const Scope& scope, Value positions, int64_t dim);

}  // namespace millrace::nn
