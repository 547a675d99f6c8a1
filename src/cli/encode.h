// Runs prompts through an encoder: a result for each of their tokens, nothing is generated.
#pragma once

#include <vector>

#include "cli/generate.h"

namespace millrace::cli {

/// Runs one batch in a session that was set up; `output_ids` are the best token at each position.
/// `logits` gets every row too, when it is set.
std::vector<Result> encode(GenerationSession& session, const std::vector<Prompt>& prompts,
                           const LogitsCallback& logits);

}  // namespace millrace::cli
