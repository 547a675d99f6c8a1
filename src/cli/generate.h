// Runs prompts through a session in batches and reports each answer: the core of `run`.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cli/answer.h"
#include "cli/prompts.h"
#include "millrace/generation_session.h"

namespace millrace::cli {

/// One prompt's result.
struct Result {
  GenerationOutput output;
  std::optional<std::string> text;
  std::optional<std::string> stop_text;
  std::vector<std::optional<std::string>> beam_texts;  // of output.beams
  double setup_s = 0, first_token_s = 0, total_s = 0;
};

/// Called with text as it is made, when there is one prompt.
using TextCallback = std::function<void(const std::string&)>;

/// Decodes one batch in a session that was set up. `stop` is asked after every step: true ends all
/// sequences.
std::vector<Result> generate(GenerationSession& session, const std::vector<Prompt>& prompts,
                             const DecodeOptions& options, const TextCallback& on_text = nullptr,
                             const std::function<bool()>& stop = nullptr);

/// Maxima that hold for all prompts; a length that nobody limits goes to the engine's end. Throws
/// Error when a prompt does not fit.
SetupOptions fit_setup(const Engine& engine, const std::vector<Prompt>& prompts,
                       SetupOptions setup);

/// What `--stats` prints, for standard error.
std::string format_stats(const SessionStats& stats);

}  // namespace millrace::cli
