#include "cli/logits_file.h"

#include <algorithm>

#include "base/str.h"
#include "checkpoint/safetensors_writer.h"

namespace millrace::cli {

LogitsCallback LogitsFile::collector(size_t first_prompt) {
  return [this, first_prompt](int sequence, int position, int rows, std::span<const float> logits) {
    const size_t prompt = first_prompt + static_cast<size_t>(sequence);
    if (rows_.size() <= prompt) rows_.resize(prompt + 1);
    std::vector<float>& all = rows_[prompt];
    const auto end = static_cast<size_t>((position + rows) * vocab_);
    if (all.size() < end) all.resize(end);
    std::copy(logits.begin(), logits.end(), all.begin() + position * vocab_);
  };
}

void LogitsFile::write(const std::vector<size_t>& prompt_lengths,
                       const std::vector<size_t>& new_tokens) const {
  std::vector<SafetensorsWriter::Tensor> tensors;
  std::vector<std::span<const float>> contents;
  const auto vocab = static_cast<size_t>(vocab_);
  const auto add = [&](const char* name, size_t prompt, size_t first, size_t rows) {
    if (rows == 0) return;
    tensors.push_back(
        {str(name, ".", prompt), ir::DType::kF32, {static_cast<int64_t>(rows), vocab_}});
    contents.push_back(std::span(rows_[prompt]).subspan(first * vocab, rows * vocab));
  };
  for (size_t i = 0; i < prompt_lengths.size(); ++i) {
    add("prompt_logits", i, 0, prompt_lengths[i]);
    // The row at a position holds the logits of the token after it.
    add("logits", i, prompt_lengths[i] - 1, new_tokens[i]);
  }
  SafetensorsWriter writer(path_, tensors);
  for (const auto& floats : contents)
    writer.write(std::as_bytes(floats));
  writer.commit();
}

}  // namespace millrace::cli
