// What a step brings to a decoder: the values that prepare_basic_inputs declares and attention
// passes on to its op.
#pragma once

#include <map>
#include <vector>

#include "nn/trace.h"

namespace millrace::nn {

struct StepInputs {
  Value input_ids;               // i32 [T], already merged with the ids sampled on the device
  Value position_ids;            // i32 [T]
  Value last_token_ids;          // i32 [L] rows that need logits
  Value context_lengths;         // i32 [S] full prompt lengths
  std::vector<Value> sequence;   // in the order of ops/common/sequence_inputs.h
  std::vector<Value> kv_caches;  // one state per layer, those of cross attention behind the others
  Value encoder_lengths{};       // i32 [S], where there is cross attention
};

/// What a run of the encoder brings: whole inputs of sequences that begin.
struct EncoderInputs {
  Value input_ids;                  // i32 [T]
  Value features;                   // f32 [2T, bins] instead: frames of speech
  Value position_ids;               // i32 [T]
  Value query_start, query_length;  // i32 [S] which rows are whose
  Value block_offsets;              // i32 [groups, S, M]
  std::vector<Value> cross_caches;  // by decoder layer
};

}  // namespace millrace::nn
