#include "cli/chat.h"

#include <csignal>
#include <cstdio>
#include <iostream>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "cli/generate.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::json;

volatile std::sig_atomic_t answering = 0;
volatile std::sig_atomic_t interrupted = 0;

void on_interrupt(int) {
  if (answering == 0 || interrupted != 0) _exit(130);
  interrupted = 1;
}

class Chat {
 public:
  Chat(const std::shared_ptr<Engine>& engine, const SamplingParams& sampling,
       const std::optional<std::string>& system)
      : engine_(engine), sampling_(sampling), session_(engine) {
    if (system) messages_.push_back({{"role", "system"}, {"content", *system}});
    has_system_ = system.has_value();
  }

  void setup(SetupOptions setup) {
    setup.batch_size = 1;
    const auto limit = static_cast<int>(engine_->info().max_seq_len);
    // An answer gets what was asked for, or a quarter of the context; the rest is for the chat so
    // far.
    answer_limit_ = std::min(sampling_.max_new_tokens.value_or(limit / 4), std::max(1, limit / 2));
    setup.max_new_tokens = answer_limit_;
    setup.max_context_length = std::max(1, limit - answer_limit_);
    context_limit_ = setup.max_context_length;
    session_.setup(setup);
  }

  void turn(const std::string& text) {
    messages_.push_back({{"role", "user"}, {"content", text}});
    Prompt prompt{fit(), sampling_};
    prompt.sampling.max_new_tokens = answer_limit_;
    if (prompt.input_ids.empty()) {
      std::fprintf(stderr, "millrace: this message alone is longer than the context of %d tokens\n",
                   context_limit_);
      messages_.erase(messages_.size() - 1);
      return;
    }
    answering = 1;
    interrupted = 0;
    const std::vector<Result> results = generate(
        session_, {prompt}, {},
        [](const std::string& piece) {
          std::fwrite(piece.data(), 1, piece.size(), stdout);
          std::fflush(stdout);
        },
        [] { return interrupted != 0; });
    answering = 0;
    std::fputs("\n", stdout);
    messages_.push_back({{"role", "assistant"}, {"content", results[0].text.value_or("")}});
  }

 private:
  // The chat's ids; the oldest turns go until it fits. Empty when even the newest message does not.
  std::vector<int32_t> fit() {
    bool dropped = false;
    for (;;) {
      std::vector<int32_t> ids = encode_messages(*engine_, json_line(messages_));
      if (static_cast<int>(ids.size()) <= context_limit_) {
        if (dropped) {
          std::fprintf(stderr,
                       "millrace: the chat has outgrown the context of %d tokens; its oldest "
                       "turns were dropped\n",
                       context_limit_);
        }
        return ids;
      }
      const size_t oldest = has_system_ ? 1 : 0;
      if (messages_.size() - oldest <= 1) return {};
      // A question and its answer go together: templates want the roles to alternate.
      messages_.erase(oldest);
      while (messages_.size() - oldest > 1 && messages_[oldest].at("role") != "user") {
        messages_.erase(oldest);
      }
      dropped = true;
    }
  }

  std::shared_ptr<Engine> engine_;
  SamplingParams sampling_;
  GenerationSession session_;
  Json messages_ = Json::array();
  bool has_system_ = false;
  int answer_limit_ = 0, context_limit_ = 0;
};

}  // namespace

int run_chat(const std::shared_ptr<Engine>& engine, SetupOptions setup,
             const SamplingParams& sampling, const std::optional<std::string>& system) {
  if (!engine->tokenizer() || !engine->tokenizer()->has_chat_template()) {
    throw_bad_input("the model has no chat template", engine->info().model,
                    "give a prompt: millrace run MODEL \"Once upon a time\"");
  }
  Chat chat(engine, sampling, system);
  chat.setup(setup);
  std::signal(SIGINT, on_interrupt);
  std::fprintf(stderr, "Chat with %s. Ctrl-D ends it, Ctrl-C an answer.\n",
               engine->info().model.c_str());
  std::string line;
  for (;;) {
    std::fputs("> ", stderr);
    if (!std::getline(std::cin, line)) break;
    if (!line.empty()) chat.turn(line);
  }
  std::fputs("\n", stderr);
  return 0;
}

}  // namespace millrace::cli
