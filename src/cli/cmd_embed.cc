// millrace embed: a text as one vector, made of a model's last hidden states.
#include <algorithm>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/generate.h"
#include "cli/model_options.h"
#include "cli/prompts.h"

namespace millrace::cli {
namespace {

struct EmbedOptions {
  ModelOptions model;
  std::optional<std::string> text, input_ids, pooling;
  bool json = false;  // there is no other form
};

std::string choose_pooling(const EmbedOptions& o, const Engine& engine) {
  if (!o.pooling) return engine.info().kind == "encoder" ? "mean" : "last";
  if (*o.pooling != "mean" && *o.pooling != "first" && *o.pooling != "last") {
    throw_bad_input(str("unknown pooling '", *o.pooling, "'"), "--pooling",
                    "use mean, first or last");
  }
  return *o.pooling;
}

std::vector<int32_t> read_ids(const EmbedOptions& o, const Engine& engine) {
  if (o.text.has_value() == o.input_ids.has_value()) {
    throw_bad_input("one text is needed", "", "give TEXT or --input-ids");
  }
  return o.input_ids ? parse_ids(*o.input_ids, "--input-ids") : encode_prompt(engine, *o.text);
}

// [tokens, width] one after the other.
std::vector<float> hidden_states(const std::shared_ptr<Engine>& engine,
                                 const std::vector<int32_t>& ids, SetupOptions setup) {
  SamplingParams nothing_new;
  nothing_new.max_new_tokens = 0;
  setup = fit_setup(*engine, {{ids, nothing_new}}, setup);
  GenerationSession session(engine);
  session.setup(setup);
  std::vector<float> states;
  const auto take = [&](int, int position, int rows, std::span<const float> values) {
    const size_t width = values.size() / static_cast<size_t>(rows);
    states.resize(ids.size() * width);
    std::copy(values.begin(), values.end(),
              states.begin() + static_cast<int64_t>(static_cast<size_t>(position) * width));
  };
  session.decode({{ids, nothing_new}}, {.logits = take, .prompt_logits = true});
  return states;
}

std::vector<double> pool(const std::vector<float>& states, size_t tokens,
                         const std::string& pooling) {
  const size_t width = states.size() / tokens;
  std::vector<double> vector(width, 0);
  const size_t begin = pooling == "last" ? tokens - 1 : 0;
  const size_t end = pooling == "first" ? 1 : tokens;
  for (size_t t = begin; t < end; ++t) {
    for (size_t d = 0; d < width; ++d)
      vector[d] += static_cast<double>(states[t * width + d]) / static_cast<double>(end - begin);
  }
  return vector;
}

int run(EmbedOptions& o) {
  o.model.finish();
  o.model.engine.embeddings = true;
  const std::shared_ptr<Engine> engine = o.model.open();
  const std::string pooling = choose_pooling(o, *engine);
  const std::vector<int32_t> ids = read_ids(o, *engine);
  const std::vector<float> states = hidden_states(engine, ids, o.model.setup());
  std::vector<float> vector;
  for (const double x : pool(states, ids.size(), pooling))
    vector.push_back(static_cast<float>(x));
  const nlohmann::ordered_json line = {
      {"embedding", vector}, {"pooling", pooling}, {"input_ids", ids}};
  std::puts(json_line(line).c_str());
  return 0;
}

}  // namespace

void add_embed(Program& program) {
  auto options = std::make_shared<EmbedOptions>();
  EmbedOptions& o = *options;
  Command command = program.command("embed", "a text as one vector");
  o.model.declare(command);
  command.positional("TEXT", &o.text, "the text");
  command.group("Vector")
      .option("--input-ids", &o.input_ids, "token ids instead of text: 3,17,99")
      .option("--pooling", &o.pooling,
              "of the last hidden states: mean, first (BERT's [CLS]) or last token; default: mean "
              "for encoders, last for decoders")
      .flag("--json", &o.json, "as JSON, which it is anyway");
  command.footer("Example:\n  millrace embed BERT_FOLDER \"The sea was calm.\" --pooling first");
  command.run([options] { return run(*options); });
}

}  // namespace millrace::cli
