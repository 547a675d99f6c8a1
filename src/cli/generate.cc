#include "cli/generate.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "base/error.h"

namespace millrace::cli {

std::vector<Result> generate(GenerationSession& session, const std::vector<Prompt>& prompts,
                             const DecodeOptions& options, const TextCallback& on_text,
                             const std::function<bool()>& stop) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  std::vector<GenerationRequest> requests;
  std::vector<Answer> answers;
  for (const Prompt& prompt : prompts) {
    requests.push_back(
        {prompt.input_ids, prompt.sampling, prompt.decoder_input_ids, prompt.input_features});
    answers.emplace_back(session.engine(), prompt.sampling);
  }
  std::vector<Result> results(prompts.size());
  DecodeStream stream = session.decode_stream(requests, options);
  while (const auto added = stream.next()) {
    const double now = elapsed();
    if (prompts[0].sampling.num_beams > 1) {  // tokens come at the end
      for (Result& result : results)
        if (result.first_token_s == 0) result.first_token_s = now;
    }
    for (const StepToken& token : *added) {
      const auto i = static_cast<size_t>(token.sequence);
      if (results[i].first_token_s == 0) results[i].first_token_s = now;
      results[i].total_s = now;
      std::string text = answers[i].push(token.id);
      if (answers[i].stop_text()) {
        stream.finish(token.sequence);
      } else if (token.finish_reason != FinishReason::kNone) {
        text += answers[i].finish();
      }
      if (on_text && !text.empty()) on_text(text);
    }
    if (stop && stop()) {
      for (size_t i = 0; i < prompts.size(); ++i)
        stream.finish(static_cast<int>(i));
    }
  }
  for (size_t i = 0; i < results.size(); ++i) {
    results[i].output = stream.outputs()[i];
    const std::string rest = answers[i].finish();
    if (on_text && !rest.empty()) on_text(rest);
    results[i].text = answers[i].text();
    results[i].stop_text = answers[i].stop_text();
    if (results[i].total_s == 0) results[i].total_s = elapsed();
    for (const BeamOutput& beam : results[i].output.beams) {
      Answer answer(session.engine(), prompts[i].sampling);
      for (const int32_t id : beam.output_ids)
        answer.push(id);
      answer.finish();
      results[i].beam_texts.push_back(answer.text());
    }
  }
  return results;
}

namespace {

// Rows that the encoder makes of the prompt; 0 for other models.
int encoder_length(const Engine& engine, const Prompt& prompt, const std::string& where) {
  const EngineInfo& info = engine.info();
  if (info.kind != "encoder_decoder") return 0;
  if (info.encoder_features > 0) return static_cast<int>(info.max_encoder_len);
  const auto length = static_cast<int>(prompt.input_ids.size());
  if (length == 0) throw_bad_input("the prompt is empty", where, "give at least one token");
  if (length > info.max_encoder_len) {
    throw_bad_input(
        str("the prompt has ", length, " tokens, the encoder takes ", info.max_encoder_len), where,
        "shorten it");
  }
  return length;
}

}  // namespace

SetupOptions fit_setup(const Engine& engine, const std::vector<Prompt>& prompts,
                       SetupOptions setup) {
  const auto limit = static_cast<int>(engine.info().max_seq_len);
  int context = 1, total = 1, logprobs = 0;
  setup.max_encoder_length = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto length = static_cast<int>(prompts[i].decoder_prompt().size());
    const std::string where = prompts.size() > 1 ? str("prompt ", i) : "";
    if (length == 0) throw_bad_input("the prompt is empty", where, "give at least one token");
    const bool writes = engine.info().kind != "encoder";
    const int max_new = writes ? prompts[i].sampling.max_new_tokens.value_or(limit - length) : 0;
    if (length > limit || (length == limit && max_new > 0)) {
      throw_bad_input(str("the prompt has ", length, " tokens, the context holds ", limit), where,
                      "shorten it, or raise --max-seq-len where the model allows it");
    }
    if (length + max_new > limit) {
      throw_bad_input(str("a prompt of ", length, " and ", max_new,
                          " new tokens exceed the context of ", limit),
                      where, "lower --max-new-tokens or raise --max-seq-len");
    }
    context = std::max(context, length);
    setup.max_encoder_length =
        std::max(setup.max_encoder_length, encoder_length(engine, prompts[i], where));
    total = std::max(total, length + max_new);
    logprobs = std::max({logprobs, prompts[i].sampling.logprobs.value_or(0),
                         prompts[i].sampling.prompt_logprobs.value_or(0)});
  }
  setup.max_context_length = context;
  setup.max_new_tokens = total - context;
  for (const Prompt& prompt : prompts) {
    // Room for a short prompt with many new tokens beside a long one with few.
    setup.max_new_tokens =
        std::max(setup.max_new_tokens,
                 std::min(prompt.sampling.max_new_tokens.value_or(0), limit - context));
  }
  setup.max_logprobs = logprobs;
  return setup;
}

namespace {

std::string format_times(const std::vector<StepTimes>& steps) {
  if (steps.empty()) return "";
  const auto replayed =
      std::count_if(steps.begin(), steps.end(), [](const StepTimes& t) { return t.replayed; });
  std::string text = str("steps: ", steps.size(), ", of which ", replayed, " were replayed\n");
  const auto print = [&](const char* name, std::vector<double> values, const char* unit) {
    const double first = values[0];
    std::sort(values.begin(), values.end());
    char line[160];
    std::snprintf(line, sizeof line, "  %-28s %12.3f %12.3f %12.3f  %s\n", name, first,
                  values[values.size() / 2], values.back(), unit);
    text += line;
  };
  const auto column = [&](auto value) {
    std::vector<double> values;
    for (const StepTimes& t : steps)
      values.push_back(value(t));
    return values;
  };
  char head[96];
  std::snprintf(head, sizeof head, "  %-28s %12s %12s %12s\n", "a step", "first", "median", "most");
  text += head;
  print("until its results", column([](const StepTimes& t) { return t.total_s * 1e3; }), "ms");
  print("on the device", column([](const StepTimes& t) { return t.device_s * 1e3; }), "ms");
  print("device idle before it", column([](const StepTimes& t) { return t.idle_s * 1e6; }), "us");
  print("on the host", column([](const StepTimes& t) { return t.host_s * 1e3; }), "ms");
  print("launches", column([](const StepTimes& t) { return static_cast<double>(t.launches); }), "");
  return text;
}

}  // namespace

std::string format_stats(const SessionStats& s) {
  std::string text = "memory plan\n";
  const auto row = [&](const char* name, int64_t bytes) {
    char line[96];
    std::snprintf(line, sizeof line, "  %-28s %12s\n", name, format_bytes(bytes).c_str());
    text += line;
  };
  row("weights, read in place", s.weights_mapped);
  row("weights, copied", s.weights_copied);
  row("activations and workspace", s.activations);
  row("KV pool", s.kv_pool);
  row("step buffers (2 sets)", s.step_buffers);
  row("token history", s.token_history);
  row("sampler", s.sampler);
  if (s.prompt_table > 0) row("virtual tokens", s.prompt_table);
  row("allocated", s.weights_copied + s.session_bytes());
  if (s.taken_by_setup > 0) {
    row("taken from the GPU for it", s.taken_by_setup);
    row("taken after the steps", s.taken);
  }
  char loading[48];
  std::snprintf(loading, sizeof loading, "weights loaded in %.2f s\n", s.load_s);
  text += loading;
  text += str("KV blocks: ", s.kv_blocks_used_peak, " of ", s.kv_blocks, " used at most\n");
  const char* ahead = !s.runs_ahead      ? "off (the device runs each step at once)"
                      : s.waits_for_host ? "off (a logits processor sees every step)"
                                         : "on";
  text += str("run-ahead: ", ahead, "\n");
  if (s.runs_ahead) text += str("captured steps: ", s.captures, "\n");
  return text + format_times(s.step_times);
}

}  // namespace millrace::cli
