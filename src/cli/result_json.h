// Results as lines of JSON (docs/schemas/).
#pragma once

#include <string>
#include <vector>

#include "cli/generate.h"

namespace millrace::cli {

/// One line of `run --json`.
std::string result_to_json(size_t index, const Prompt& prompt, const Result& result);

/// "3 17 99": what is shown of an answer without a tokenizer.
std::string ids_to_text(const std::vector<int32_t>& ids);

}  // namespace millrace::cli
