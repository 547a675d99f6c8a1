// The C++ face of the Rust crate: ownership, errors and files. docs/text.md describes the whole.
#include "millrace/text.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/str.h"
#include "text/text_ffi.h"

namespace millrace {

namespace fs = std::filesystem;

namespace {

MillraceTextView view(std::string_view text) {
  return {text.data(), text.size()};
}

/// An empty string stands for an argument that is absent.
MillraceTextView view_or_absent(const std::string& text) {
  return text.empty() ? MillraceTextView{nullptr, 0} : view(text);
}

/// Frees what Rust returned.
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { millrace_text_free_buffer(buffer_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  MillraceTextBuffer* out() { return &buffer_; }

  std::string text() const {
    return buffer_.size == 0
               ? std::string()
               : std::string(reinterpret_cast<const char*>(buffer_.data), buffer_.size);
  }

  std::vector<int32_t> ids() const {
    std::vector<int32_t> ids(buffer_.size / sizeof(int32_t));
    if (!ids.empty()) std::memcpy(ids.data(), buffer_.data, buffer_.size);
    return ids;
  }

 private:
  MillraceTextBuffer buffer_{nullptr, 0, 0};
};

std::string place(const std::string& where, const std::string& file) {
  if (file.empty()) return where;
  return where.empty() ? file : (fs::path(where) / file).string();
}

/// `error` holds message, file and fault, each ended by a zero byte.
[[noreturn]] void throw_error(const Buffer& error, const std::string& where, std::string advice) {
  const std::string text = error.text();
  const size_t first = text.find('\0');
  CHECK(first != std::string::npos, "malformed error from the text library");
  const size_t second = text.find('\0', first + 1);
  CHECK(second != std::string::npos, "malformed error from the text library");
  std::string message = text.substr(0, first);
  const std::string file = place(where, text.substr(first + 1, second - first - 1));
  if (text.compare(second + 1, 5, "input") == 0) {
    throw_bad_input(std::move(message), file, std::move(advice));
  }
  throw_failed(std::move(message), file, "report it with the tokenizer and the text");
}

constexpr std::string_view kTemplateFolder = "additional_chat_templates";
constexpr std::array<std::string_view, 8> kAssetNames = {
    "tokenizer.json",        "tokenizer.model",         "vocab.json",        "merges.txt",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
};

/// tokenizer.json of the largest published vocabularies has 35 MB.
constexpr int64_t kAssetBytesMax = int64_t{1} << 30;

std::string read_file(const fs::path& path) {
  const MappedFile file = MappedFile::open(path.string());
  if (file.size() > kAssetBytesMax) {
    throw_bad_input("the file is larger than 1 GiB", path.string(), "check the model folder");
  }
  std::string bytes(reinterpret_cast<const char*>(file.data()), file.size());
  file.check_intact();
  return bytes;
}

std::optional<int32_t> optional_id(int32_t id) {
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

}  // namespace

/// OWNS: the Rust object; immutable after opening.
struct Tokenizer::Handle {
  Handle(MillraceText* rust_text, std::string origin) : text(rust_text), where(std::move(origin)) {
    millrace_text_facts(text, &facts);
  }
  ~Handle() { millrace_text_close(text); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  MillraceText* text;
  MillraceTextFacts facts{};
  std::string where;
};

Tokenizer Tokenizer::open(const fs::path& folder) {
  const std::vector<TextAsset> assets = collect_assets(folder);
  if (assets.empty()) {
    throw_bad_input("the folder has no tokenizer", folder.string(),
                    "put tokenizer.json or tokenizer.model beside config.json, or use token ids");
  }
  return open(assets, folder.string());
}

Tokenizer Tokenizer::open(std::span<const TextAsset> assets, std::string_view where) {
  std::vector<MillraceTextFile> files;
  for (const TextAsset& asset : assets)
    files.push_back({view(asset.name), view(asset.bytes)});
  Buffer error;
  MillraceText* text = millrace_text_open(files.data(), files.size(), error.out());
  const std::string origin(where);
  if (text == nullptr) throw_error(error, origin, "get the tokenizer files of the model again");
  return Tokenizer(std::make_shared<const Handle>(text, origin));
}

std::vector<TextAsset> Tokenizer::collect_assets(const fs::path& folder) {
  std::vector<TextAsset> assets;
  std::error_code ignored;
  for (const std::string_view name : kAssetNames) {
    const fs::path path = folder / name;
    if (fs::exists(path, ignored)) assets.push_back({std::string(name), read_file(path)});
  }
  const auto has = [&](std::string_view name) {
    return std::ranges::any_of(assets, [&](const TextAsset& asset) { return asset.name == name; });
  };
  if (!has("tokenizer.json") && !has("tokenizer.model") && !has("vocab.json")) return {};
  // Of several tokenizers only the one that will be used: the others only cost time and room.
  const auto drop = [&](std::string_view name) {
    std::erase_if(assets, [&](const TextAsset& asset) { return asset.name == name; });
  };
  if (has("tokenizer.json")) drop("tokenizer.model");
  if (has("tokenizer.json") || has("tokenizer.model")) {
    drop("vocab.json");
    drop("merges.txt");
  }
  std::vector<fs::path> templates;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(folder / kTemplateFolder, ignored)) {
    if (entry.path().extension() == ".jinja") templates.push_back(entry.path());
  }
  std::ranges::sort(templates);
  for (const fs::path& path : templates) {
    assets.push_back({str(kTemplateFolder, "/", path.filename().string()), read_file(path)});
  }
  return assets;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  Buffer ids, error;
  if (!millrace_text_encode(handle_->text, view(text), options.add_special_tokens,
                            options.allow_special_in_text, ids.out(), error.out())) {
    throw_error(error, "prompt", "give text in UTF-8");
  }
  return ids.ids();
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Buffer text, error;
  if (!millrace_text_decode(handle_->text, ids.data(), ids.size(), skip_special_tokens, text.out(),
                            error.out())) {
    throw_error(error, handle_->where, "check the tokenizer's decoder");
  }
  return text.text();
}

std::optional<std::string> Tokenizer::token_text(int32_t id) const {
  Buffer text;
  if (!millrace_text_token_text(handle_->text, id, text.out())) return std::nullopt;
  return text.text();
}

std::optional<int32_t> Tokenizer::token_id(std::string_view token) const {
  return optional_id(millrace_text_token_id(handle_->text, view(token)));
}

int32_t Tokenizer::vocab_size() const {
  return handle_->facts.vocab_size;
}
std::optional<int32_t> Tokenizer::bos_id() const {
  return optional_id(handle_->facts.bos_id);
}
std::optional<int32_t> Tokenizer::eos_id() const {
  return optional_id(handle_->facts.eos_id);
}
std::optional<int32_t> Tokenizer::pad_id() const {
  return optional_id(handle_->facts.pad_id);
}
std::optional<int32_t> Tokenizer::unk_id() const {
  return optional_id(handle_->facts.unk_id);
}
bool Tokenizer::has_chat_template() const {
  return handle_->facts.chat_templates > 0;
}

namespace {

MillraceTextChat to_chat(const ChatRequest& request) {
  MillraceTextChat chat{};
  chat.messages = view(request.messages_json);
  chat.tools = view_or_absent(request.tools_json);
  chat.variables = view_or_absent(request.variables_json);
  chat.name = view_or_absent(request.template_name);
  chat.add_generation_prompt =
      request.add_generation_prompt.has_value() ? int{*request.add_generation_prompt} : -1;
  chat.python_containers = request.python_containers;
  chat.now = request.now.value_or(int64_t{std::time(nullptr)});
  return chat;
}

constexpr const char* kChatAdvice = "check the messages against what the chat template expects";

}  // namespace

std::string Tokenizer::render_chat(const ChatRequest& request) const {
  const MillraceTextChat chat = to_chat(request);
  Buffer text, error;
  if (!millrace_text_render_chat(handle_->text, &chat, text.out(), error.out())) {
    throw_error(error, handle_->where, kChatAdvice);
  }
  return text.text();
}

std::vector<int32_t> Tokenizer::encode_chat(const ChatRequest& request) const {
  const MillraceTextChat chat = to_chat(request);
  Buffer ids, error;
  if (!millrace_text_encode_chat(handle_->text, &chat, ids.out(), error.out())) {
    throw_error(error, handle_->where, kChatAdvice);
  }
  return ids.ids();
}

struct IncrementalDecoder::Stream {
  explicit Stream(bool skip_special) : rust(millrace_text_stream_open(skip_special)) {}
  ~Stream() { millrace_text_stream_close(rust); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  MillraceTextStream* rust;
};

IncrementalDecoder::IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), stream_(std::make_unique<Stream>(skip_special_tokens)) {}

IncrementalDecoder::~IncrementalDecoder() = default;
IncrementalDecoder::IncrementalDecoder(IncrementalDecoder&& other) noexcept = default;
IncrementalDecoder& IncrementalDecoder::operator=(IncrementalDecoder&& other) noexcept = default;

std::string IncrementalDecoder::push(int32_t id) {
  Buffer text, error;
  const Tokenizer::Handle& handle = *tokenizer_.handle_;
  if (!millrace_text_stream_push(handle.text, stream_->rust, id, text.out(), error.out())) {
    throw_error(error, handle.where, "check the tokenizer's decoder");
  }
  return text.text();
}

std::string IncrementalDecoder::flush() {
  Buffer text, error;
  const Tokenizer::Handle& handle = *tokenizer_.handle_;
  if (!millrace_text_stream_flush(handle.text, stream_->rust, text.out(), error.out())) {
    throw_error(error, handle.where, "check the tokenizer's decoder");
  }
  return text.text();
}

}  // namespace millrace
