// From the MODEL argument of a command to a folder.
#pragma once

#include <string>

namespace millrace {

/// The argument itself where it is a folder, else the snapshot of the hub id (`org/name` or `name`)
/// in the local Hugging Face cache (HF_HUB_CACHE, HF_HOME, ~/.cache/huggingface). Anything else is
/// bad input.
std::string resolve_model_folder(const std::string& model);

}  // namespace millrace
