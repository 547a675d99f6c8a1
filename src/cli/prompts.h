// What `run` is asked to do: prompts with their parameters, from flags or from lines of JSON.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/args.h"
#include "millrace/engine.h"
#include "millrace/sampling.h"

namespace millrace::cli {

/// One prompt, ready to run.
struct Prompt {
  std::vector<int32_t> input_ids;  // of encoder-decoder models, the encoder's
  SamplingParams sampling;
  std::vector<int32_t> decoder_input_ids = {};  // never empty in encoder-decoder models
  std::vector<float> input_features = {};       // of speech models: [frames, bins]

  /// What is continued.
  const std::vector<int32_t>& decoder_prompt() const {
    return decoder_input_ids.empty() ? input_ids : decoder_input_ids;
  }
};

/// The flags of length, sampling and stopping. The same names with underscores are keys of an input
/// file.
struct SamplingFlags {
  std::optional<int64_t> max_new_tokens, min_new_tokens, top_k, no_repeat_ngram_size, logprobs,
      prompt_logprobs;
  std::optional<double> temperature, top_p, min_p, typical_p, repetition_penalty, presence_penalty,
      frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> logit_bias, stop, bad_words_ids;
  std::optional<std::string> stop_token_ids;
  bool greedy = false, ignore_eos = false;

  void declare(Command& command);
  /// What a request without words of its own gets: the model's defaults, then these flags.
  SamplingParams resolve(const SamplingParams& model_defaults) const;
};

/// Turns text or a chat into ids. Throws Error when the model has no tokenizer or template.
std::vector<int32_t> encode_prompt(const Engine& engine, const std::string& text);
std::vector<int32_t> encode_messages(const Engine& engine, const std::string& messages_json);

/// What the decoder begins with when nothing else is given; empty for other models than
/// encoder-decoder ones. Throws Error when the model does not say.
std::vector<int32_t> decoder_start(const Engine& engine);

/// Throws Error unless the model is a decoder alone: for commands that know no other.
void require_decoder(const Engine& engine);

/// The messages of a one-turn chat as JSON text.
std::string user_message_json(const std::optional<std::string>& system, const std::string& text);

/// Reads a file of JSON lines, whole, before anything runs. Throws Error naming the line.
std::vector<Prompt> read_input_file(const std::string& path, const Engine& engine,
                                    const SamplingParams& defaults);

/// The features of a WAV file's speech, [frames, bins]. Throws Error: not such a file, another
/// rate, too long, a model that reads no speech.
std::vector<float> read_speech(const std::string& path, const Engine& engine);

/// The file's text. Throws Error.
std::string read_text_file(const std::string& path, const std::string& flag);

}  // namespace millrace::cli
