// Continues a prompt and prints the text as it is made:
//
//     stream_text MODEL PROMPT [NEW_TOKENS]
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "millrace/engine.h"
#include "millrace/error.h"
#include "millrace/generation_session.h"
#include "millrace/text.h"

namespace {

void stream(const std::string& model, const std::string& prompt, int new_tokens) {
  const std::shared_ptr<millrace::Engine> engine = millrace::Engine::open(model);
  const std::optional<millrace::Tokenizer>& tokenizer = engine->tokenizer();
  if (!tokenizer) {
    throw millrace::Error(millrace::ErrorCode::kBadInput, "the model has no tokenizer", model);
  }

  millrace::GenerationRequest request;
  request.input_ids = tokenizer->encode(prompt, {.allow_special_in_text = false});
  request.sampling.max_new_tokens = new_tokens;  // all else at its neutral value: greedy

  millrace::GenerationSession session(engine);
  session.setup({.max_context_length = static_cast<int>(request.input_ids.size()),
                 .max_new_tokens = new_tokens});

  millrace::IncrementalDecoder decoder(*tokenizer);
  const auto print = [](const std::string& piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  millrace::DecodeStream steps = session.decode_stream({request});
  while (const auto tokens = steps.next()) {
    for (const millrace::StepToken& token : *tokens) {
      print(decoder.push(token.id));
    }
  }
  print(decoder.flush() + "\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL PROMPT [NEW_TOKENS]\n", argv[0]);
    return 2;
  }
  try {
    stream(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 64);
  } catch (const millrace::Error& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return error.code() == millrace::ErrorCode::kBadInput ? 2 : 1;
  }
  return 0;
}
