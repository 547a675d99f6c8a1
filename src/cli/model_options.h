// The options shared by the commands that run a model.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cli/args.h"
#include "millrace/engine.h"
#include "millrace/generation_session.h"

namespace millrace::cli {

struct ModelOptions {
  std::string model;
  EngineOptions engine;
  std::optional<int64_t> max_batch_size, max_seq_len, max_num_tokens;
  std::optional<int> threads, tokens_per_block, window, sink_tokens;
  int64_t kv_memory = 0;
  bool no_cache = false, quiet = false, deterministic = false;
  std::string log_level = "warning";

  /// Declares MODEL and the shared options.
  void declare(Command& command);
  /// Checks what was given and fills in `engine`. Throws Error naming the flag.
  void finish();
  /// Opens the engine and says on standard error what a user should know (unless --quiet).
  std::shared_ptr<Engine> open();
  /// The session options among them.
  SetupOptions setup() const;
};

/// `value` when it was given and positive; throws Error naming `flag` when it is not positive or
/// has more than 31 bits.
int64_t positive(const std::optional<int64_t>& value, int64_t fallback, const std::string& flag);
/// The same with zero allowed.
int64_t not_negative(const std::optional<int64_t>& value, int64_t fallback,
                     const std::string& flag);

}  // namespace millrace::cli
