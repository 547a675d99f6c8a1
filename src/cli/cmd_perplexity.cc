// millrace perplexity: how well a model predicts a text, by the protocol of docs/cli.md.
//
// The text is split into documents at NUL bytes; each becomes BOS (if the tokenizer adds one) plus
// its tokens; documents are joined; the stream is cut into windows of N predictions (N + 1 tokens,
// overlapping by one); every token after the first is predicted exactly once, and the last
// incomplete window is dropped.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/prompts.h"

namespace millrace::cli {
namespace {

struct PerplexityOptions {
  ModelOptions model;
  std::string text_file;
  std::optional<int64_t> window, max_tokens;
  bool json = false;
};

std::vector<int32_t> read_stream(const Engine& engine, const std::string& text) {
  std::vector<int32_t> stream;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\0', begin), text.size());
    const std::vector<int32_t> ids = encode_prompt(engine, text.substr(begin, end - begin));
    stream.insert(stream.end(), ids.begin(), ids.end());
    begin = end + 1;
  }
  return stream;
}

// Sum of -ln p over windows of `window` predictions.
double negative_log_likelihood(GenerationSession& session, const std::vector<int32_t>& stream,
                               int64_t window, int64_t windows, int64_t batch) {
  double nll = 0;
  for (int64_t first = 0; first < windows; first += batch) {
    std::vector<GenerationRequest> requests;
    for (int64_t w = first; w < std::min(first + batch, windows); ++w) {
      GenerationRequest request;
      const auto begin = stream.begin() + w * window;
      request.input_ids.assign(begin, begin + window + 1);
      request.sampling.max_new_tokens = 0;
      request.sampling.prompt_logprobs = 0;
      requests.push_back(std::move(request));
    }
    for (const GenerationOutput& output : session.decode(requests)) {
      for (const TokenScore& score : output.prompt_logprobs)
        nll -= score.logprob;
    }
  }
  return nll;
}

int run(PerplexityOptions& o) {
  o.model.finish();
  const int64_t window = positive(o.window, 1024, "--window");
  const int64_t max_tokens = positive(o.max_tokens, INT64_MAX, "--max-tokens");
  const std::shared_ptr<Engine> engine = o.model.open();
  require_decoder(*engine);
  if (window > engine->info().max_seq_len) {
    throw_bad_input(
        str("a window of ", window, " exceeds the context of ", engine->info().max_seq_len),
        "--window", "choose a smaller window");
  }
  const std::vector<int32_t> stream =
      read_stream(*engine, read_text_file(o.text_file, "--text-file"));
  const auto available = (static_cast<int64_t>(stream.size()) - 1) / window;
  const int64_t windows = std::min(available, max_tokens / window);
  if (windows < 1) {
    throw_bad_input(
        str("the text gives ", stream.size(), " tokens, too few for a window of ", window),
        o.text_file, "give a longer text or a smaller --window");
  }
  SetupOptions setup = o.model.setup();
  const int64_t batch = std::clamp<int64_t>(
      std::min(windows, engine->info().max_num_tokens / window), 1, engine->info().max_batch_size);
  setup.batch_size = static_cast<int>(batch);
  setup.max_context_length = static_cast<int>(window);
  GenerationSession session(engine);
  session.setup(setup);
  const auto start = std::chrono::steady_clock::now();
  const double nll = negative_log_likelihood(session, stream, window, windows, batch);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const auto tokens = windows * window;
  const double mean = nll / static_cast<double>(tokens);
  const double rate = static_cast<double>(tokens) / took.count();
  if (o.json) {
    std::printf("{\"perplexity\": %.6f, \"nll\": %.8f, \"tokens\": %lld, \"tokens_per_s\": %.1f}\n",
                std::exp(mean), mean, static_cast<long long>(tokens), rate);
  } else {
    std::printf("perplexity %.4f over %lld tokens (%.4f nats each), %.0f tokens/s\n",
                std::exp(mean), static_cast<long long>(tokens), mean, rate);
  }
  return 0;
}

}  // namespace

void add_perplexity(Program& program) {
  auto options = std::make_shared<PerplexityOptions>();
  PerplexityOptions& o = *options;
  Command command = program.command("perplexity", "how well a model predicts a text");
  o.model.declare(command);
  command.group("Measurement")
      .option("--text-file", &o.text_file, "the text; documents are separated by NUL bytes")
      .option("--window", &o.window, "predictions of a window; default 1024")
      .option("--max-tokens", &o.max_tokens, "stop after this many predictions")
      .flag("--json", &o.json, "as JSON");
  command.run([options] { return run(*options); });
}

}  // namespace millrace::cli
