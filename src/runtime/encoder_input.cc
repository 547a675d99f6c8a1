#include "runtime/encoder_input.h"

#include "base/error.h"

namespace millrace::runtime {
namespace {

void check_ids(const std::vector<int32_t>& ids, const EncoderLimits& limits,
               const std::string& where) {
  if (ids.empty()) throw_bad_input("the prompt is empty", where, "give at least one token");
  for (const int32_t id : ids) {
    if (id >= 0 && id < limits.vocab_size) continue;
    throw_bad_input(str("token id ", id, " is not in the vocabulary of ", limits.vocab_size), where,
                    "use ids of this model's tokenizer");
  }
}

EncoderInput take(GenerationRequest& request, const EncoderLimits& limits,
                  const std::string& where) {
  EncoderInput input;
  if (limits.features > 0) {
    const auto frame = static_cast<size_t>(limits.features);
    input.features = std::move(request.input_features);
    input.length = static_cast<int>(input.features.size() / frame / 2);
    if (input.length != limits.max_length ||
        input.features.size() != 2 * frame * static_cast<size_t>(input.length)) {
      throw_bad_input(str("the model reads ", 2 * limits.max_length, " frames of ", limits.features,
                          " features, the request has ", input.features.size(), " numbers"),
                      where, "give audio, or all frames of its log-mel spectrum");
    }
  } else {
    check_ids(request.input_ids, limits, where);
    input.ids = std::move(request.input_ids);
    input.length = static_cast<int>(input.ids.size());
    if (input.length > limits.max_length) {
      throw_bad_input(
          str("the prompt has ", input.length, " tokens, the encoder takes ", limits.max_length),
          where, "shorten it");
    }
  }
  request.input_ids = std::move(request.decoder_input_ids);
  if (request.input_ids.empty()) {
    if (limits.decoder_start_token_id < 0) {
      throw_bad_input("the model does not say with which token its decoder starts", where,
                      "give decoder_input_ids");
    }
    request.input_ids = {limits.decoder_start_token_id};
  }
  return input;
}

}  // namespace

std::vector<EncoderInput> take_encoder_inputs(std::vector<GenerationRequest>& requests,
                                              const EncoderLimits& limits) {
  std::vector<EncoderInput> inputs(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::string where = requests.size() > 1 ? str("request ", i) : "";
    if (limits.kind == engine::ModelKind::kEncoderDecoder) {
      inputs[i] = take(requests[i], limits, where);
    } else if (!requests[i].decoder_input_ids.empty() || !requests[i].input_features.empty()) {
      throw_bad_input("the model has no encoder beside a decoder", where,
                      "leave decoder_input_ids and input_features out");
    } else if (limits.kind == engine::ModelKind::kEncoder &&
               requests[i].sampling.max_new_tokens.value_or(1) != 0) {
      throw_bad_input("the model is an encoder: it makes no new tokens", where,
                      "ask for 0 new tokens");
    }
  }
  return inputs;
}

}  // namespace millrace::runtime
