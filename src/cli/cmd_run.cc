// millrace run: prompts in, text or JSON lines out.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>

#include <unistd.h>

#include "base/error.h"
#include "cli/chat.h"
#include "cli/commands.h"
#include "cli/encode.h"
#include "cli/generate.h"
#include "cli/logits_file.h"
#include "cli/model_options.h"
#include "cli/result_json.h"

namespace millrace::cli {
namespace {

struct RunOptions {
  ModelOptions model;
  SamplingFlags sampling;
  std::optional<std::string> prompt, prompt_file, input_ids, input_file, audio, system, logits_file;
  std::string kv_cache = "paged", layout = "packed";
  std::optional<int64_t> multi_block;
  bool chat = false, json = false, stats = false, no_cuda_graphs = false;
};

// The prompts, or none when a chat was asked for: no prompt, and a person at the other end.
std::vector<Prompt> read_prompts(const RunOptions& o, const Engine& engine) {
  const SamplingParams sampling = o.sampling.resolve(engine.default_sampling());
  const int given = (o.prompt ? 1 : 0) + (o.prompt_file ? 1 : 0) + (o.input_ids ? 1 : 0) +
                    (o.input_file ? 1 : 0) + (o.audio ? 1 : 0);
  if (given > 1) {
    throw_bad_input("several prompts were given", "",
                    "give one of PROMPT, --prompt-file, --input-ids, --audio and --input-file");
  }
  if (o.audio) return {{{}, sampling, decoder_start(engine), read_speech(*o.audio, engine)}};
  if (engine.info().encoder_features > 0 && !o.input_file) {
    throw_bad_input("the model reads speech", engine.info().model,
                    "give --audio, or an --input-file with audio or input_features");
  }
  if (o.input_file) {
    if (o.chat || o.system) {
      throw_bad_input("--chat and --system do not apply to --input-file", "",
                      "write `messages` into its lines");
    }
    return read_input_file(*o.input_file, engine, sampling);
  }
  if (o.input_ids && (o.chat || o.system)) {
    throw_bad_input("--chat and --input-ids contradict each other", "",
                    "give a text to apply the chat template to");
  }
  if (o.input_ids) {
    return {{parse_ids(*o.input_ids, "--input-ids"), sampling, decoder_start(engine)}};
  }
  if (given == 0 && ::isatty(STDIN_FILENO) != 0) return {};
  std::string text = o.prompt.value_or("");
  if (o.prompt_file) text = read_text_file(*o.prompt_file, "--prompt-file");
  if (given == 0) text.assign(std::istreambuf_iterator<char>(std::cin), {});
  if (text.empty()) throw_bad_input("the prompt is empty", "", "give some text");
  if (o.chat || o.system) {
    return {{encode_messages(engine, user_message_json(o.system, text)), sampling}};
  }
  return {{encode_prompt(engine, text), sampling, decoder_start(engine)}};
}

void check(const RunOptions& o) {
  if (o.kv_cache != "paged" && o.kv_cache != "contiguous") {
    throw_bad_input(str("unknown cache '", o.kv_cache, "'"), "--kv-cache",
                    "use paged or contiguous");
  }
  if (o.layout != "packed" && o.layout != "padded") {
    throw_bad_input(str("unknown layout '", o.layout, "'"), "--layout", "use packed or padded");
  }
  if (o.kv_cache == "contiguous" && o.model.tokens_per_block) {
    throw_bad_input("--tokens-per-block does not apply to --kv-cache contiguous", "",
                    "leave one of the two out");
  }
  if (o.multi_block && *o.multi_block > 32) {
    throw_bad_input(str(*o.multi_block, " pieces are too many"), "--multi-block", "give 1 to 32");
  }
}

void print_speed(const std::vector<Result>& results) {
  size_t tokens = 0;
  double first = 0, total = 0;
  for (const Result& r : results) {
    tokens += r.output.output_ids.size();
    first = std::max(first, r.first_token_s);
    total = std::max(total, r.total_s);
  }
  const double rate = tokens > results.size() && total > first
                          ? static_cast<double>(tokens - results.size()) / (total - first)
                          : 0;
  std::fprintf(stderr, "first token after %.0f ms, %zu tokens, %.1f tokens/s", first * 1e3, tokens,
               rate);
  if (results.size() == 1 && results[0].output.reused_tokens > 0) {
    std::fprintf(stderr, ", %d prompt tokens reused", results[0].output.reused_tokens);
  }
  std::fprintf(stderr, "\n");
}

void show(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// What is left to print of a result that was not, or was (`streamed`), printed as it was made.
void print_text(const Result& result, bool streamed) {
  const std::vector<BeamOutput>& beams = result.output.beams;
  if (beams.size() > 1) {
    for (size_t b = 0; b < beams.size(); ++b)
      std::puts(result.beam_texts[b].value_or(ids_to_text(beams[b].output_ids)).c_str());
  } else if (!streamed) {
    std::puts(result.text.value_or(ids_to_text(result.output.output_ids)).c_str());
  } else {
    if (!result.text) std::fputs(ids_to_text(result.output.output_ids).c_str(), stdout);
    std::fputs("\n", stdout);
  }
}

void write_logits(LogitsFile& logits, const std::vector<Prompt>& prompts,
                  const std::vector<Result>& results, bool encodes) {
  std::vector<size_t> prompt_lengths, new_tokens;
  for (size_t i = 0; i < prompts.size(); ++i) {
    prompt_lengths.push_back(prompts[i].decoder_prompt().size());
    new_tokens.push_back(encodes ? 0 : results[i].output.output_ids.size());
  }
  logits.write(prompt_lengths, new_tokens);
}

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int run(RunOptions& o) {
  o.model.finish();
  check(o);
  o.model.engine.multi_block = static_cast<int>(positive(o.multi_block, 0, "--multi-block"));
  o.model.engine.max_beam_width = o.sampling.beam_width();
  auto start = Clock::now();
  const std::shared_ptr<Engine> engine = o.model.open();
  double setup_s = seconds_since(start);
  const std::vector<Prompt> prompts = read_prompts(o, *engine);
  SetupOptions setup = o.model.setup();
  setup.contiguous_kv_cache = o.kv_cache == "contiguous";
  setup.padded = o.layout == "padded";
  setup.captured_graphs = !o.no_cuda_graphs;
  const bool encodes = engine->info().kind == "encoder";
  if (prompts.empty()) {
    require_decoder(*engine);
    SamplingParams sampling = o.sampling.resolve(engine->default_sampling());
    if (o.sampling.num_beams && sampling.num_beams > 1) {
      throw_bad_input("a chat does not search with beams", "--num-beams", "give a prompt");
    }
    sampling.num_beams = sampling.num_return_sequences = 1;
    return run_chat(engine, setup, sampling, o.system);
  }
  for (const Prompt& prompt : prompts)
    prompt.sampling.validate(engine->info().vocab_size);
  setup = fit_setup(*engine, prompts, setup);
  setup.beam_width = prompts[0].sampling.num_beams;
  if (setup.beam_width > 1 && o.logits_file) {
    throw_bad_input("logits of beams are not written", "--logits-file", "give --num-beams 1");
  }
  setup.batch_size = static_cast<int>(
      std::min<int64_t>(static_cast<int64_t>(prompts.size()), engine->info().max_batch_size));
  GenerationSession session(engine);
  start = Clock::now();
  session.setup(setup);
  setup_s += seconds_since(start);

  std::optional<LogitsFile> logits;
  if (o.logits_file) logits.emplace(*o.logits_file, engine->info().vocab_size);
  std::vector<Result> all;
  const auto batch = static_cast<size_t>(setup.batch_size);
  for (size_t begin = 0; begin < prompts.size(); begin += batch) {
    const auto first = prompts.begin() + static_cast<int64_t>(begin);
    const std::vector<Prompt> part(
        first, first + static_cast<int64_t>(std::min(batch, prompts.size() - begin)));
    DecodeOptions decode;
    if (logits) decode = {.logits = logits->collector(begin), .prompt_logits = true};
    const bool stream =
        prompts.size() == 1 && !o.json && !encodes && part[0].sampling.num_return_sequences == 1;
    std::vector<Result> results =
        encodes ? encode(session, part, decode.logits)
                : generate(session, part, decode, stream ? TextCallback(show) : TextCallback{});
    for (size_t i = 0; i < results.size(); ++i) {
      results[i].setup_s = setup_s;
      if (o.json) {
        std::puts(result_to_json(begin + i, part[i], results[i]).c_str());
      } else {
        print_text(results[i], stream);
      }
    }
    std::fflush(stdout);
    std::move(results.begin(), results.end(), std::back_inserter(all));
  }
  if (logits) write_logits(*logits, prompts, all, encodes);
  if (!o.model.quiet) print_speed(all);
  if (o.stats) std::fputs(format_stats(session.stats()).c_str(), stderr);
  return 0;
}

}  // namespace

void add_run(Program& program) {
  auto options = std::make_shared<RunOptions>();
  Command command = program.command("run", "generate text from prompts, or chat");
  RunOptions& o = *options;
  o.model.declare(command);
  command.positional("PROMPT", &o.prompt, "the prompt; without one: a chat, or standard input");
  command.group("Prompts")
      .option("--prompt-file", &o.prompt_file, "prompt from a file")
      .flag("--chat", &o.chat, "apply the model's chat template")
      .option("--system", &o.system, "system message; implies --chat")
      .option("--input-ids", &o.input_ids, "token ids instead of text: 3,17,99")
      .option("--audio", &o.audio, "a WAV file with 16000 samples a second, for speech models")
      .option("--input-file", &o.input_file,
              "JSON lines with prompt, messages or input_ids (speech models: audio or "
              "input_features), decoder_input_ids, and parameters by name");
  o.sampling.declare(command);
  command.group("Output and debugging")
      .flag("--json", &o.json, "one line of JSON for each prompt")
      .option("--logits-file", &o.logits_file, "write all logits as safetensors")
      .option("--kv-cache", &o.kv_cache, "paged or contiguous")
      .option("--layout", &o.layout, "packed or padded")
      .flag("--no-cuda-graphs", &o.no_cuda_graphs, "launch each step's kernels one by one")
      .option("--multi-block", &o.multi_block,
              "pieces of a sequence in generation attention; default: by its length")
      .flag("--stats", &o.stats,
            "memory plan; times of steps on the device, on the host and idle; KV use");
  command.footer(
      "Examples:\n"
      "  millrace run models/novelist-14m \"It was a dark night, and\"\n"
      "  millrace run models/novelist-14m --input-file prompts.jsonl --json\n"
      "  millrace run models/novelist-14m            (a chat)");
  command.run([options] { return run(*options); });
}

}  // namespace millrace::cli
