// `--logits-file`: logits of prompts and new tokens as safetensors.
#pragma once

#include <string>
#include <vector>

#include "millrace/generation_session.h"

namespace millrace::cli {

class LogitsFile {
 public:
  LogitsFile(std::string path, int64_t vocab_size) : path_(std::move(path)), vocab_(vocab_size) {}

  /// Collects rows of prompt `first_prompt` + sequence.
  LogitsCallback collector(size_t first_prompt);
  /// Writes `prompt_logits.I` [prompt tokens, V] and `logits.I` [new tokens, V] for every prompt.
  /// Throws Error.
  void write(const std::vector<size_t>& prompt_lengths,
             const std::vector<size_t>& new_tokens) const;

 private:
  std::string path_;
  int64_t vocab_;
  std::vector<std::vector<float>> rows_;  // by prompt: [positions, V]
};

}  // namespace millrace::cli
