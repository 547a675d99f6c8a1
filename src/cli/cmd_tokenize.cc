// millrace tokenize: text to token ids and back. Needs no weights.
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/model_folder.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/prompts.h"
#include "engine/engine_file.h"
#include "millrace/text.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::ordered_json;

struct TokenizeOptions {
  std::string model;
  std::optional<std::string> text, decode, system;
  bool chat = false, json = false, no_special = false;
};

Tokenizer open_tokenizer(const std::string& model) {
  if (!std::filesystem::is_regular_file(model)) {
    const std::string folder = resolve_model_folder(model);
    return Tokenizer::open(folder);
  }
  const auto file = engine::EngineFile::open(model);
  std::vector<TextAsset> assets;
  for (const engine::Asset& a : file->engine().assets)
    assets.push_back({a.name, a.bytes});
  return Tokenizer::open(assets, model);
}

std::string print_json(const Json& json) {
  return json_line(json);
}

int run(const TokenizeOptions& o) {
  const Tokenizer tokenizer = open_tokenizer(o.model);
  if (o.decode) {
    if (o.text || o.chat) {
      throw_bad_input("--decode takes no text", "", "give either --decode IDS or a text");
    }
    const std::vector<int32_t> given = parse_ids(*o.decode, "--decode");
    for (const int32_t id : given) {
      if (id >= 0 && id < tokenizer.vocab_size()) continue;
      throw_bad_input(str("token id ", id, " is not in the vocabulary of ", tokenizer.vocab_size()),
                      "--decode", "use ids of this model's tokenizer");
    }
    const std::string text = tokenizer.decode(given, false);
    std::puts(o.json ? print_json({{"text", text}}).c_str() : text.c_str());
    return 0;
  }
  std::string text = o.text.value_or("");
  if (!o.text) text.assign(std::istreambuf_iterator<char>(std::cin), {});
  std::vector<int32_t> ids;
  if (o.chat) {
    ChatRequest request;
    request.messages_json = user_message_json(o.system, text);
    text = tokenizer.render_chat(request);
    ids = tokenizer.encode_chat(request);
    if (!o.json) {
      std::puts(text.c_str());
      return 0;
    }
  } else {
    ids = tokenizer.encode(text, {.add_special_tokens = !o.no_special});
  }
  Json tokens = Json::array();
  for (const int32_t id : ids)
    tokens.push_back(tokenizer.token_text(id).value_or(""));
  if (o.json) {
    Json line = {{"ids", ids}, {"tokens", tokens}};
    if (o.chat) line["text"] = text;
    std::puts(print_json(line).c_str());
    return 0;
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    std::printf("%8d  %s\n", ids[i], tokens[i].get<std::string>().c_str());
  }
  return 0;
}

}  // namespace

void add_tokenize(Program& program) {
  auto options = std::make_shared<TokenizeOptions>();
  TokenizeOptions& o = *options;
  Command command = program.command("tokenize", "text to token ids and back");
  command.positional("MODEL", &o.model, "a model folder, hub id or engine file")
      .positional("TEXT", &o.text, "the text; default: standard input")
      .option("--decode", &o.decode, "ids to turn into text: 1,2,3")
      .flag("--chat", &o.chat, "show the rendered chat template")
      .option("--system", &o.system, "system message, with --chat")
      .flag("--no-special-tokens", &o.no_special, "without the begin token and its like")
      .flag("--json", &o.json, "{\"ids\": [...], \"tokens\": [...]}");
  command.run([options] { return run(*options); });
}

}  // namespace millrace::cli
