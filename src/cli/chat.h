// The chat at a terminal.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "millrace/engine.h"
#include "millrace/generation_session.h"

namespace millrace::cli {

/// Reads turns until end of input. Ctrl-C ends an answer, twice (or at the prompt) the program. A
/// chat that outgrows the context says so and lets the oldest turns go.
int run_chat(const std::shared_ptr<Engine>& engine, SetupOptions setup,
             const SamplingParams& sampling, const std::optional<std::string>& system);

}  // namespace millrace::cli
