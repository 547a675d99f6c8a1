#include "cli/answer.h"

#include "base/error.h"

namespace millrace::cli {

Answer::Answer(const Engine& engine, const SamplingParams& sampling) : stops_(sampling.stop) {
  if (engine.tokenizer()) {
    decoder_.emplace(*engine.tokenizer());
  } else if (!sampling.stop.empty()) {
    throw_bad_input("stop texts need a tokenizer, and the model has none", engine.info().model,
                    "use --stop-token-ids");
  }
}

std::string Answer::push(int32_t id) {
  if (!decoder_) return "";
  std::string shown = stops_.push(decoder_->push(id));
  text_ += shown;
  return shown;
}

std::string Answer::finish() {
  if (!decoder_ || stops_.found()) return "";
  std::string shown = stops_.push(decoder_->flush());
  shown += stops_.flush();
  text_ += shown;
  return shown;
}

std::optional<std::string> Answer::text() const {
  if (!decoder_) return std::nullopt;
  return text_;
}

}  // namespace millrace::cli
