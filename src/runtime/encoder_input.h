// What the encoder of an encoder-decoder model reads of a request, apart from the decoder's prompt.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/plan.h"
#include "millrace/generation_session.h"

namespace millrace::runtime {

struct EncoderInput {
  std::vector<int32_t> ids;     // or
  std::vector<float> features;  // [2 x length, features]
  int length = 0;               // rows that the encoder makes of it
};

struct EncoderLimits {
  engine::ModelKind kind = engine::ModelKind::kDecoder;
  int vocab_size = 0;
  int max_length = 0;  // rows of an input
  int features = 0;    // of a frame; 0: the input is ids
  int decoder_start_token_id = -1;
};

/// Of an encoder-decoder model's requests, takes the encoder's inputs out, and leaves the decoder's
/// prompts as their input_ids: decoder_input_ids, else the start token. For other models the inputs
/// are empty and requests stay as they are. Throws Error, with the request's index when there are
/// several.
std::vector<EncoderInput> take_encoder_inputs(std::vector<GenerationRequest>& requests,
                                              const EncoderLimits& limits);

}  // namespace millrace::runtime
