#include "cli/prompts.h"

#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include "audio/log_mel.h"
#include "audio/wav.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/model_options.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::json;

// A count from a flag or a line: what does not fit an int is not a count anyone means.
int count(int64_t value, const std::string& where) {
  if (value < 0 || value > std::numeric_limits<int>::max()) {
    throw_bad_input(str(value, value < 0 ? " is negative" : " is too large"), where,
                    "give 0 or more");
  }
  return static_cast<int>(value);
}

std::pair<int, float> parse_bias(const std::string& text) {
  const size_t colon = text.find(':');
  int id = 0;
  float bias = 0;
  const char* end = text.data() + text.size();
  const bool ok =
      colon != std::string::npos &&
      std::from_chars(text.data(), text.data() + colon, id).ptr == text.data() + colon &&
      std::from_chars(text.data() + colon + 1, end, bias).ptr == end && colon + 1 < text.size();
  if (!ok) throw_bad_input(str("'", text, "' is not ID:BIAS"), "--logit-bias", "write it as 17:-2");
  return {id, bias};
}

template <typename T>
void take(const std::optional<T>& from, T* to) {
  if (from) *to = *from;
}

const std::set<std::string> kKeys = {"prompt",
                                     "messages",
                                     "input_ids",
                                     "decoder_input_ids",
                                     "audio",
                                     "input_features",
                                     "max_new_tokens",
                                     "min_new_tokens",
                                     "ignore_eos",
                                     "greedy",
                                     "temperature",
                                     "top_k",
                                     "top_p",
                                     "min_p",
                                     "typical_p",
                                     "seed",
                                     "repetition_penalty",
                                     "presence_penalty",
                                     "frequency_penalty",
                                     "no_repeat_ngram_size",
                                     "logit_bias",
                                     "bad_words_ids",
                                     "stop",
                                     "stop_token_ids",
                                     "logprobs",
                                     "prompt_logprobs"};

// One line of an input file. Every key must be known: a misspelt one would be ignored silently.
class Line {
 public:
  Line(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json_.is_object()) fail("is not a JSON object");
    for (const auto& [key, value] : json_.items()) {
      if (!kKeys.contains(key)) fail(str("has an unknown key \"", key, "\""));
    }
  }

  void apply(SamplingParams* p) {
    number("max_new_tokens",
           [&](int64_t v) { p->max_new_tokens = count(v, at("max_new_tokens")); });
    number("min_new_tokens",
           [&](int64_t v) { p->min_new_tokens = count(v, at("min_new_tokens")); });
    number("top_k", [&](int64_t v) { p->top_k = count(v, at("top_k")); });
    number("no_repeat_ngram_size",
           [&](int64_t v) { p->no_repeat_ngram_size = count(v, at("no_repeat_ngram_size")); });
    number("logprobs", [&](int64_t v) { p->logprobs = count(v, at("logprobs")); });
    number("prompt_logprobs",
           [&](int64_t v) { p->prompt_logprobs = count(v, at("prompt_logprobs")); });
    number("seed", [&](int64_t v) { p->seed = static_cast<uint64_t>(v); });
    real("temperature", &p->temperature);
    real("top_p", &p->top_p);
    real("min_p", &p->min_p);
    real("typical_p", &p->typical_p);
    real("repetition_penalty", &p->repetition_penalty);
    real("presence_penalty", &p->presence_penalty);
    real("frequency_penalty", &p->frequency_penalty);
    bool greedy = false;
    boolean("greedy", &greedy);
    // A line that asks for sampling by one of its numbers samples, as the flags do.
    if (seen("temperature") || seen("top_k") || seen("top_p") || seen("min_p") ||
        seen("typical_p")) {
      p->do_sample = true;
    }
    if (greedy) p->do_sample = false;
    boolean("ignore_eos", &p->ignore_eos);
    if (const Json* v = find("stop")) {
      p->stop.clear();
      if (v->is_string()) {
        p->stop.push_back(*v);
      } else {
        for (const Json& s : list(*v, "stop"))
          p->stop.push_back(text(s, "stop"));
      }
    }
    if (const Json* v = find("stop_token_ids")) p->stop_token_ids = ids<int>(*v, "stop_token_ids");
    if (const Json* v = find("bad_words_ids")) {
      p->bad_words.clear();
      for (const Json& word : list(*v, "bad_words_ids")) {
        p->bad_words.push_back(ids<int>(word, "bad_words_ids"));
      }
    }
    if (const Json* v = find("logit_bias")) {
      p->logit_bias.clear();
      if (!v->is_object()) fail("logit_bias is not an object of \"ID\": BIAS");
      for (const auto& [id, bias] : v->items()) {
        if (!bias.is_number()) fail("logit_bias has a value that is not a number");
        p->logit_bias.push_back(parse_bias(str(id, ":", bias.get<double>())));
      }
    }
  }

  /// What the decoder of an encoder-decoder model begins with.
  std::vector<int32_t> decoder_prompt(const Engine& engine) {
    const Json* v = find("decoder_input_ids");
    if (v == nullptr) return decoder_start(engine);
    if (engine.info().kind != "encoder_decoder") {
      fail("has decoder_input_ids, and the model has no encoder beside a decoder");
    }
    return ids<int32_t>(*v, "decoder_input_ids");
  }

  /// What the model reads: ids, or of speech models frames.
  void input(const Engine& engine, Prompt* p) {
    const Json *audio = find("audio"), *features = find("input_features");
    if (engine.info().encoder_features == 0) {
      if (audio != nullptr || features != nullptr) fail("has audio, and the model reads text");
      p->input_ids = prompt(engine);
      return;
    }
    if ((audio != nullptr) == (features != nullptr)) {
      fail("needs exactly one of audio and input_features");
    }
    for (const char* key : {"prompt", "messages", "input_ids"}) {
      if (seen(key)) fail(str("has ", key, ", and the model reads speech"));
    }
    p->input_features = audio != nullptr ? read_speech(text(*audio, "audio"), engine)
                                         : frames(*features, engine.info());
  }

  std::vector<int32_t> prompt(const Engine& engine) {
    const Json* text_prompt = find("prompt");
    const Json* messages = find("messages");
    const Json* input_ids = find("input_ids");
    const int given = (text_prompt != nullptr) + (messages != nullptr) + (input_ids != nullptr);
    if (given != 1) fail("needs exactly one of prompt, messages and input_ids");
    if (input_ids != nullptr) return ids<int32_t>(*input_ids, "input_ids");
    if (messages != nullptr) return encode_messages(engine, messages->dump());
    return encode_prompt(engine, text(*text_prompt, "prompt"));
  }

 private:
  std::string at(const char* key) const { return str(where_, ", ", key); }
  bool seen(const char* key) const { return json_.contains(key) && !json_.at(key).is_null(); }

  const Json* find(const char* key) const { return seen(key) ? &json_.at(key) : nullptr; }

  template <typename Set>
  void number(const char* key, Set set) {
    const Json* v = find(key);
    if (v == nullptr) return;
    if (!v->is_number_integer()) fail(str(key, " is not a whole number"));
    set(v->get<int64_t>());
  }

  void real(const char* key, double* target) {
    const Json* v = find(key);
    if (v == nullptr) return;
    if (!v->is_number()) fail(str(key, " is not a number"));
    *target = v->get<double>();
  }

  void boolean(const char* key, bool* target) {
    const Json* v = find(key);
    if (v == nullptr) return;
    if (!v->is_boolean()) fail(str(key, " is not true or false"));
    *target = v->get<bool>();
  }

  const Json::array_t& list(const Json& v, const char* key) {
    if (!v.is_array()) fail(str(key, " is not a list"));
    return v.get_ref<const Json::array_t&>();
  }

  std::string text(const Json& v, const char* key) {
    if (!v.is_string()) fail(str(key, " is not a text"));
    return v.get<std::string>();
  }

  /// [mel bins][frames] as the file has it -> [frames, bins].
  std::vector<float> frames(const Json& v, const EngineInfo& info) {
    const auto bins = static_cast<size_t>(info.encoder_features);
    const auto count = static_cast<size_t>(2 * info.max_encoder_len);
    const Json::array_t& rows = list(v, "input_features");
    if (rows.size() != bins) {
      fail(str("input_features has ", rows.size(), " rows, the model reads ", bins, " mel bins"));
    }
    std::vector<float> out(bins * count);
    for (size_t b = 0; b < bins; ++b) {
      const Json::array_t& row = list(rows[b], "input_features");
      if (row.size() != count) {
        fail(str("input_features has ", row.size(), " frames, the model reads ", count));
      }
      for (size_t t = 0; t < count; ++t) {
        if (!row[t].is_number()) fail("input_features holds something that is not a number");
        out[t * bins + b] = row[t].get<float>();
      }
    }
    return out;
  }

  template <typename T>
  std::vector<T> ids(const Json& v, const char* key) {
    std::vector<T> out;
    for (const Json& id : list(v, key)) {
      if (!id.is_number_integer()) fail(str(key, " holds something that is not a token id"));
      out.push_back(static_cast<T>(count(id.get<int64_t>(), at(key))));
    }
    return out;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw_bad_input(str("the line ", what), where_, "see `millrace run --help`");
  }

  const Json& json_;
  std::string where_;
};

}  // namespace

void SamplingFlags::declare(Command& command) {
  command.group("Length")
      .option("--max-new-tokens", &max_new_tokens,
              "most new tokens; default: the model's, else until the context is full")
      .option("--min-new-tokens", &min_new_tokens, "no end before this many")
      .flag("--ignore-eos", &ignore_eos, "the end token is an ordinary one");
  command.group("Sampling (what is not given comes from generation_config.json)")
      .flag("--greedy", &greedy, "the most probable token; no penalty that is not given here")
      .option("--temperature", &temperature, "0: greedy")
      .option("--top-k", &top_k, "the K most probable tokens; 0: all")
      .option("--top-p", &top_p, "the smallest set with this probability")
      .option("--min-p", &min_p, "at least this part of the best token's probability")
      .option("--typical-p", &typical_p, "locally typical sampling")
      .option("--seed", &seed, "of the generator; default: random, reported")
      .option("--repetition-penalty", &repetition_penalty, "1: none; counts prompt and new tokens")
      .option("--presence-penalty", &presence_penalty, "-2 to 2; counts new tokens")
      .option("--frequency-penalty", &frequency_penalty, "-2 to 2; counts new tokens")
      .option("--no-repeat-ngram-size", &no_repeat_ngram_size, "no N tokens twice")
      .option("--logit-bias", &logit_bias, "ID:BIAS, may be given several times")
      .option("--bad-words-ids", &bad_words_ids, "IDS never made, may be given several times");
  command.group("Beam search (what is not given comes from generation_config.json)")
      .option("--num-beams", &num_beams, "beams; above 1, the best of them without sampling")
      .option("--length-penalty", &length_penalty, "scores are divided by length ^ X; default 1")
      .option("--early-stopping", &early_stopping,
              "true: end when there are enough; false: by a guess; never: when none can improve")
      .option("--num-return-sequences", &num_return_sequences, "sequences of a prompt, best first");
  command.group("Stopping and reporting")
      .option("--stop", &stop, "text that ends the answer, may be given several times")
      .option("--stop-token-ids", &stop_token_ids, "ids that end the answer")
      .option("--logprobs", &logprobs, "log-probabilities of new tokens and the K best")
      .option("--prompt-logprobs", &prompt_logprobs, "the same for the prompt's tokens");
}

int64_t SamplingFlags::beam_width() const {
  return positive(num_beams, greedy ? 1 : 0, "--num-beams");
}

void SamplingFlags::resolve_beams(SamplingParams* p) const {
  if (greedy) {
    p->num_beams = 1;
    p->length_penalty = 1;
    p->early_stopping = EarlyStopping::kFalse;
  }
  if (num_beams) p->num_beams = static_cast<int>(std::min<int64_t>(*num_beams, 1 << 16));
  if (p->num_beams == 1) p->num_return_sequences = 1;
  if (num_return_sequences) {
    p->num_return_sequences = count(*num_return_sequences, "--num-return-sequences");
  }
  take(length_penalty, &p->length_penalty);
  if (early_stopping) {
    if (*early_stopping != "true" && *early_stopping != "false" && *early_stopping != "never") {
      throw_bad_input(str("unknown value '", *early_stopping, "'"), "--early-stopping",
                      "use true, false or never");
    }
    p->early_stopping = *early_stopping == "true"    ? EarlyStopping::kTrue
                        : *early_stopping == "never" ? EarlyStopping::kNever
                                                     : EarlyStopping::kFalse;
  }
  if (p->num_beams == 1) return;
  if (temperature || top_k || top_p || min_p || typical_p) {
    throw_bad_input(str("sampling with ", p->num_beams, " beams is not supported"), "",
                    "leave the sampling options out, or give --num-beams 1");
  }
  p->do_sample = false;
}

SamplingParams SamplingFlags::resolve(const SamplingParams& model_defaults) const {
  SamplingParams p = model_defaults;
  if (greedy) {
    for (const auto& [given, flag] : {std::pair{temperature.has_value(), "--temperature"},
                                      {top_k.has_value(), "--top-k"},
                                      {top_p.has_value(), "--top-p"},
                                      {min_p.has_value(), "--min-p"},
                                      {typical_p.has_value(), "--typical-p"}}) {
      if (given) {
        throw_bad_input(str("--greedy and ", flag, " contradict each other"), "",
                        "give one of the two");
      }
    }
    p.do_sample = false;
    p.repetition_penalty = 1;
    p.no_repeat_ngram_size = 0;
    p.bad_words.clear();
    p.min_new_tokens = 0;
  } else if (temperature || top_k || top_p || min_p || typical_p) {
    p.do_sample = true;
  }
  take(temperature, &p.temperature);
  take(top_p, &p.top_p);
  take(min_p, &p.min_p);
  take(typical_p, &p.typical_p);
  take(repetition_penalty, &p.repetition_penalty);
  take(presence_penalty, &p.presence_penalty);
  take(frequency_penalty, &p.frequency_penalty);
  if (top_k) p.top_k = count(*top_k, "--top-k");
  if (no_repeat_ngram_size) {
    p.no_repeat_ngram_size = count(*no_repeat_ngram_size, "--no-repeat-ngram-size");
  }
  if (max_new_tokens) p.max_new_tokens = count(*max_new_tokens, "--max-new-tokens");
  if (min_new_tokens) p.min_new_tokens = count(*min_new_tokens, "--min-new-tokens");
  if (p.max_new_tokens && min_new_tokens && p.min_new_tokens > *p.max_new_tokens) {
    throw_bad_input("--min-new-tokens exceeds --max-new-tokens", "", "lower it");
  }
  if (logprobs) p.logprobs = count(*logprobs, "--logprobs");
  if (prompt_logprobs) p.prompt_logprobs = count(*prompt_logprobs, "--prompt-logprobs");
  resolve_beams(&p);
  if (seed) p.seed = seed;
  p.ignore_eos = ignore_eos;
  for (const std::string& text : logit_bias)
    p.logit_bias.push_back(parse_bias(text));
  for (const std::string& text : bad_words_ids) {
    p.bad_words.push_back(parse_ids(text, "--bad-words-ids"));
  }
  if (stop_token_ids) p.stop_token_ids = parse_ids(*stop_token_ids, "--stop-token-ids");
  for (const std::string& text : stop) {
    if (text.empty()) throw_bad_input("a stop text is empty", "--stop", "give some text");
    p.stop.push_back(text);
  }
  return p;
}

std::vector<int32_t> encode_prompt(const Engine& engine, const std::string& text) {
  if (!engine.tokenizer()) {
    throw_bad_input("the model has no tokenizer", engine.info().model,
                    "give token ids with --input-ids");
  }
  return engine.tokenizer()->encode(text);
}

std::vector<int32_t> decoder_start(const Engine& engine) {
  if (engine.info().kind != "encoder_decoder") return {};
  if (engine.decoder_start_token_id() < 0) {
    throw_bad_input("the model does not say with which token its decoder starts",
                    engine.info().model, "give decoder_input_ids in an input file");
  }
  return {engine.decoder_start_token_id()};
}

void require_decoder(const Engine& engine) {
  if (engine.info().kind == "decoder") return;
  throw_bad_input("this command is for decoders, the model has an encoder", engine.info().model,
                  "use `millrace run`");
}

std::vector<int32_t> encode_messages(const Engine& engine, const std::string& messages_json) {
  if (!engine.tokenizer() || !engine.tokenizer()->has_chat_template()) {
    throw_bad_input("the model has no chat template", engine.info().model,
                    "give a plain prompt, without --chat");
  }
  ChatRequest request;
  request.messages_json = messages_json;
  return engine.tokenizer()->encode_chat(request);
}

std::string user_message_json(const std::optional<std::string>& system, const std::string& text) {
  Json messages = Json::array();
  if (system) messages.push_back({{"role", "system"}, {"content", *system}});
  messages.push_back({{"role", "user"}, {"content", text}});
  return json_line(messages);
}

std::vector<float> read_speech(const std::string& path, const Engine& engine) {
  const EngineInfo& info = engine.info();
  if (info.encoder_features == 0) {
    throw_bad_input("the model does not read speech", info.model, "give it text");
  }
  const Sound sound = parse_wav(read_text_file(path, "audio"), path);
  if (sound.rate != kSpeechRate) {
    throw_bad_input(
        str("the sound has ", sound.rate, " samples a second, the model reads ", kSpeechRate), path,
        "convert it: ffmpeg -i IN -ar 16000 -ac 1 OUT.wav");
  }
  const int64_t frames = 2 * info.max_encoder_len;
  if (static_cast<int64_t>(sound.samples.size()) > frames * kSpeechHop) {
    const auto seconds = [](int64_t samples) { return static_cast<double>(samples) / kSpeechRate; };
    throw_bad_input(str("the sound is ", seconds(static_cast<int64_t>(sound.samples.size())),
                        " s long, the model reads ", seconds(frames * kSpeechHop)),
                    path, "cut it into pieces");
  }
  return log_mel(sound.samples, frames, static_cast<int>(info.encoder_features));
}

std::string read_text_file(const std::string& path, const std::string& flag) {
  std::ifstream in(path, std::ios::binary);
  if (!in || !std::filesystem::is_regular_file(path)) {
    throw_bad_input("cannot read the file", path, str("check the path given to ", flag));
  }
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<Prompt> read_input_file(const std::string& path, const Engine& engine,
                                    const SamplingParams& defaults) {
  const std::string all = read_text_file(path, "--input-file");
  std::vector<Prompt> prompts;
  size_t begin = 0;
  for (int number = 1; begin < all.size(); ++number) {
    const size_t end = std::min(all.find('\n', begin), all.size());
    const std::string_view text = std::string_view(all).substr(begin, end - begin);
    begin = end + 1;
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = str(path, ", line ", number);
    Json json;
    try {
      json = parse_json(text);
    } catch (const Json::exception& error) {
      throw_bad_input("the line is not JSON in UTF-8", where, error.what());
    }
    Line line(json, where);
    Prompt prompt{{}, defaults};
    line.apply(&prompt.sampling);
    line.input(engine, &prompt);
    prompt.decoder_input_ids = line.decoder_prompt(engine);
    prompts.push_back(std::move(prompt));
  }
  if (prompts.empty()) throw_bad_input("the file has no prompts", path, "write one object a line");
  return prompts;
}

}  // namespace millrace::cli
