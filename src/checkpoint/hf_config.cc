#include "checkpoint/hf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "checkpoint/safetensors.h"

namespace millrace {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxConfigBytes = 16 << 20;
constexpr int64_t kMaxShown = 60;

const Json& json_of(const void* value) {
  return *static_cast<const Json*>(value);
}

/// A value as a message shows it: `4096`, `"silu"`, `a list`.
std::string describe(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  if (value.is_string())
    return quote_name(value.get_ref<const std::string&>().substr(0, kMaxShown));
  return json_line(value).substr(0, kMaxShown);
}

std::optional<int64_t> as_int(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto whole = value.get<uint64_t>();
    if (whole > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(whole);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double real = value.get<double>();
  if (std::trunc(real) != real || std::abs(real) > 0x1p53) return std::nullopt;
  return static_cast<int64_t>(real);
}

std::string range_text(IntRange range) {
  if (range.min == INT64_MIN && range.max == INT64_MAX) return "a whole number";
  if (range.max == INT64_MAX) return str("a whole number of at least ", range.min);
  return str("a whole number from ", range.min, " to ", range.max);
}

std::string range_text(FloatRange range) {
  if (range.min <= kAnyFloat.min && range.max >= kAnyFloat.max) return "a number";
  if (range.min == kPositive.min && range.max >= kAnyFloat.max) return "a number above 0";
  if (range.max >= kAnyFloat.max) return str("a number of at least ", range.min);
  return str("a number from ", range.min, " to ", range.max);
}

// What `architectures` would say for the model types that exist without it.
constexpr std::pair<const char*, const char*> kArchitectureOfType[] = {
    {"llama", "LlamaForCausalLM"},
    {"mistral", "MistralForCausalLM"},
    {"qwen2", "Qwen2ForCausalLM"},
    {"qwen3", "Qwen3ForCausalLM"},
    {"gpt2", "GPT2LMHeadModel"},
    {"gpt_neox", "GPTNeoXForCausalLM"},
    {"phi3", "Phi3ForCausalLM"},
    {"gemma2", "Gemma2ForCausalLM"},
    {"t5", "T5ForConditionalGeneration"},
    {"bert", "BertModel"},
    {"gptj", "GPTJForCausalLM"},
    {"codegen", "CodeGenForCausalLM"},
    {"gpt_bigcode", "GPTBigCodeForCausalLM"},
    {"starcoder2", "Starcoder2ForCausalLM"},
    {"opt", "OPTForCausalLM"},
    {"phi", "PhiForCausalLM"},
    {"stablelm", "StableLmForCausalLM"},
    {"glm", "GlmForCausalLM"},
    {"glm4", "Glm4ForCausalLM"},
    {"qwen", "QWenLMHeadModel"},
    {"internlm", "InternLMForCausalLM"},
    {"internlm2", "InternLM2ForCausalLM"},
    {"chatglm", "ChatGLMModel"},
    {"ministral", "MinistralForCausalLM"},
    {"gemma", "GemmaForCausalLM"},
    {"cohere", "CohereForCausalLM"},
    {"cohere2", "Cohere2ForCausalLM"},
    {"olmo", "OlmoForCausalLM"},
    {"olmo2", "Olmo2ForCausalLM"},
    {"olmo3", "Olmo3ForCausalLM"},
    {"granite", "GraniteForCausalLM"},
    {"nemotron", "NemotronForCausalLM"},
    {"smollm3", "SmolLM3ForCausalLM"},
};

constexpr std::array<std::pair<const char*, ir::DType>, 8> kTorchTypes = {{
    {"float32", ir::DType::kF32},
    {"float", ir::DType::kF32},
    {"bfloat16", ir::DType::kBF16},
    {"float16", ir::DType::kF16},
    {"half", ir::DType::kF16},
    {"float64", ir::DType::kF64},
    {"float8_e4m3fn", ir::DType::kF8E4M3},
    {"float8_e5m2", ir::DType::kF8E5M2},
}};

}  // namespace

struct HfConfig::Document {
  Json root;
  std::string path;
  // Full paths of the keys asked for, and of those that do not matter.
  std::set<std::string, std::less<>> read, ignored;
};

HfConfig::HfConfig(std::shared_ptr<Document> document, const void* object, std::string prefix)
    : document_(std::move(document)), object_(object), prefix_(std::move(prefix)) {}

HfConfig HfConfig::load(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw_bad_input(fs::exists(folder, error) ? "not a folder" : "no such folder", folder);
  }
  const fs::path path = fs::path(folder) / "config.json";
  if (!fs::exists(fs::symlink_status(path, error))) {
    throw_bad_input("config.json is missing", folder,
                    "a model is a folder as published on Hugging Face");
  }
  return load_file(path.string());
}

HfConfig HfConfig::load_file(const std::string& path) {
  const MappedFile file = MappedFile::open(path);
  if (file.size() > kMaxConfigBytes) {
    throw_bad_input(str("the file has ", format_bytes(file.size()), "; at most ",
                        format_bytes(kMaxConfigBytes), " make sense"),
                    path);
  }
  const std::string text(reinterpret_cast<const char*>(file.data()),
                         static_cast<size_t>(file.size()));
  file.check_intact();
  return parse(text, path);
}

HfConfig HfConfig::parse(std::string_view text, const std::string& path) {
  auto document = std::make_shared<Document>();
  document->path = path;
  try {
    document->root = parse_json(text);
  } catch (const Json::parse_error& e) {
    throw_bad_input(str("the JSON is broken at byte ", e.byte), path);
  } catch (const Json::exception&) {  // a number beyond every type
    throw_bad_input("the JSON holds a number that is out of range", path);
  }
  if (!document->root.is_object()) throw_bad_input("the JSON is not an object", path);
  const void* root = &document->root;
  return {std::move(document), root, ""};
}

void HfConfig::fail(std::string_view key, std::string_view problem, std::string_view advice) const {
  throw_bad_input(str(prefix_, key, " ", problem), document_->path, std::string(advice));
}

const void* HfConfig::find(std::string_view key) const {
  document_->read.insert(str(prefix_, key));
  const Json& object = json_of(object_);
  const auto at = object.find(key);
  return at == object.end() || at->is_null() ? nullptr : &*at;
}

const void* HfConfig::need(std::string_view key) const {
  const void* value = find(key);
  if (value == nullptr) fail(key, "is missing");
  return value;
}

bool HfConfig::has(std::string_view key) const {
  const Json& object = json_of(object_);
  const auto at = object.find(key);
  return at != object.end() && !at->is_null();
}

bool HfConfig::is_null(std::string_view key) const {
  const Json& object = json_of(object_);
  const auto at = object.find(key);
  return at != object.end() && at->is_null();
}

bool HfConfig::is_object(std::string_view key) const {
  return has(key) && json_of(object_).find(key)->is_object();
}

bool HfConfig::is_list(std::string_view key) const {
  return has(key) && json_of(object_).find(key)->is_array();
}

bool HfConfig::is_string(std::string_view key) const {
  return has(key) && json_of(object_).find(key)->is_string();
}

std::vector<std::string> HfConfig::keys() const {
  std::vector<std::string> out;
  for (const auto& item : json_of(object_).items())
    out.push_back(item.key());
  return out;
}

int64_t HfConfig::get_int(std::string_view key, IntRange range) const {
  const Json& value = json_of(need(key));
  const auto whole = as_int(value);
  if (!whole || *whole < range.min || *whole > range.max) {
    fail(key, str("is ", describe(value), " instead of ", range_text(range)));
  }
  return *whole;
}

int64_t HfConfig::get_int(std::string_view key, int64_t fallback, IntRange range) const {
  return find(key) == nullptr ? fallback : get_int(key, range);
}

double HfConfig::get_float(std::string_view key, FloatRange range) const {
  const Json& value = json_of(need(key));
  const double real = value.is_number() ? value.get<double>() : NAN;
  if (!(real >= range.min && real <= range.max)) {
    fail(key, str("is ", describe(value), " instead of ", range_text(range)));
  }
  return real;
}

double HfConfig::get_float(std::string_view key, double fallback, FloatRange range) const {
  return find(key) == nullptr ? fallback : get_float(key, range);
}

bool HfConfig::get_bool(std::string_view key, bool fallback) const {
  const void* found = find(key);
  if (found == nullptr) return fallback;
  const Json& value = json_of(found);
  if (!value.is_boolean()) fail(key, str("is ", describe(value), " instead of true or false"));
  return value.get<bool>();
}

std::string HfConfig::get_string(std::string_view key) const {
  const Json& value = json_of(need(key));
  if (!value.is_string()) fail(key, str("is ", describe(value), " instead of a string"));
  return value.get<std::string>();
}

std::string HfConfig::get_string(std::string_view key, std::string_view fallback) const {
  return find(key) == nullptr ? std::string(fallback) : get_string(key);
}

std::vector<std::string> HfConfig::get_strings(std::string_view key) const {
  const void* found = find(key);
  if (found == nullptr) return {};
  const Json& list = json_of(found);
  if (!list.is_array()) fail(key, str("is ", describe(list), " instead of a list"));
  std::vector<std::string> out;
  for (const Json& value : list) {
    if (!value.is_string()) fail(key, str("holds ", describe(value), " instead of a string"));
    out.push_back(value.get<std::string>());
  }
  return out;
}

std::vector<int64_t> HfConfig::get_ints(std::string_view key, IntRange range) const {
  const void* found = find(key);
  if (found == nullptr) return {};
  const Json& list = json_of(found);
  if (!list.is_array()) fail(key, str("is ", describe(list), " instead of a list"));
  std::vector<int64_t> out;
  for (const Json& value : list) {
    const auto whole = as_int(value);
    if (!whole || *whole < range.min || *whole > range.max) {
      fail(key, str("holds ", describe(value), " instead of ", range_text(range)));
    }
    out.push_back(*whole);
  }
  return out;
}

std::vector<double> HfConfig::get_floats(std::string_view key, FloatRange range) const {
  const void* found = find(key);
  if (found == nullptr) return {};
  const Json& list = json_of(found);
  if (!list.is_array()) fail(key, str("is ", describe(list), " instead of a list"));
  std::vector<double> out;
  for (const Json& value : list) {
    const double real = value.is_number() ? value.get<double>() : NAN;
    if (!(real >= range.min && real <= range.max)) {
      fail(key, str("holds ", describe(value), " instead of ", range_text(range)));
    }
    out.push_back(real);
  }
  return out;
}

std::vector<std::vector<int64_t>> HfConfig::get_int_lists(std::string_view key,
                                                          IntRange range) const {
  const void* found = find(key);
  if (found == nullptr) return {};
  const Json& list = json_of(found);
  if (!list.is_array()) fail(key, str("is ", describe(list), " instead of a list"));
  std::vector<std::vector<int64_t>> out;
  for (const Json& inner : list) {
    if (!inner.is_array()) fail(key, str("holds ", describe(inner), " instead of a list"));
    std::vector<int64_t> row;
    for (const Json& value : inner) {
      const auto whole = as_int(value);
      if (!whole || *whole < range.min || *whole > range.max) {
        fail(key, str("holds ", describe(value), " instead of ", range_text(range)));
      }
      row.push_back(*whole);
    }
    out.push_back(std::move(row));
  }
  return out;
}

HfConfig HfConfig::object(std::string_view key) const {
  const Json& value = json_of(need(key));
  if (!value.is_object()) fail(key, str("is ", describe(value), " instead of an object"));
  return {document_, &value, str(prefix_, key, ".")};
}

std::string HfConfig::architecture() const {
  const std::vector<std::string> architectures = get_strings("architectures");
  const std::string type = get_string("model_type", "");
  if (!architectures.empty()) return architectures[0];
  if (type.empty()) fail("architectures", "is missing");
  for (const auto& [known, architecture] : kArchitectureOfType) {
    if (type == known) return architecture;
  }
  fail("architectures", str("is missing, and the model_type ", quote_name(type), " is not known"));
}

std::optional<ir::DType> HfConfig::dtype() const {
  find("torch_dtype");
  const char* key = find("dtype") != nullptr ? "dtype" : "torch_dtype";
  std::string name = get_string(key, "");
  if (name.empty() || name == "auto") return std::nullopt;
  if (name.starts_with("torch.")) name = name.substr(6);
  for (const auto& [known, type] : kTorchTypes) {
    if (name == known) return type;
  }
  fail(key, str("is ", quote_name(name), ", which is not a known type"));
}

void HfConfig::ignore(std::string_view key) const {
  document_->ignored.insert(str(prefix_, key));
}

std::vector<std::string> HfConfig::unread_keys() const {
  std::vector<std::string> out;
  // Objects still to be looked into, with their prefix.
  std::vector<std::pair<const Json*, std::string>> open = {{&json_of(object_), prefix_}};
  while (!open.empty()) {
    const auto [object, prefix] = std::move(open.back());
    open.pop_back();
    for (const auto& item : object->items()) {
      std::string path = str(prefix, item.key());
      if (document_->ignored.contains(path)) continue;
      if (!document_->read.contains(path)) {
        out.push_back(std::move(path));
      } else if (item.value().is_object()) {
        open.emplace_back(&item.value(), path + ".");
      }
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace millrace
