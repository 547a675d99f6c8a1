// Text and token ids: tokenizers, decoding token by token, chat templates. Needs no engine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

/// A file that a tokenizer is made of: its name relative to the model folder, and its contents.
struct TextAsset {
  std::string name;
  std::string bytes;
};

struct EncodeOptions {
  /// Put around the text what the model expects there (a begin token, for most).
  bool add_special_tokens = true;
  /// Let special tokens that are spelled out in the text become special tokens. Off for what users
  /// write.
  bool allow_special_in_text = true;
};

/// A chat and what its template is told. JSON comes as text, so that this header needs no JSON
/// library.
struct ChatRequest {
  /// An array of objects, as in OpenAI's API: `[{"role": "user", "content": "Hello"}]`.
  std::string messages_json;
  /// An array of tools; empty: none.
  std::string tools_json;
  /// An object with further variables of the template (`{"enable_thinking": false}`); empty: none.
  std::string variables_json;
  /// Which template, for models with several; empty: `tool_use` when there are tools, else
  /// `default`.
  std::string template_name;
  /// Whether the answer's beginning follows. `nullopt` leaves it to the template, which
  /// transformers never does.
  std::optional<bool> add_generation_prompt = true;
  /// A list or object that a template prints without `tojson` looks as in Python (`{'a': True}`),
  /// which is what models of transformers are trained on; off: as JSON, which template engines of
  /// other languages print.
  bool python_containers = true;
  /// Seconds since 1970 for templates that state the date; unset: the time of the call.
  std::optional<int64_t> now;
};

/// A model's tokenizer with its chat templates. Cheap to copy (copies share it), safe to use from
/// several threads. Whatever is wrong with files, templates or JSON throws millrace::Error that
/// names the file.
class Tokenizer {
 public:
  /// Reads tokenizer.json, else tokenizer.model (SentencePiece), else vocab.json with merges.txt,
  /// and tokenizer_config.json, special_tokens_map.json, added_tokens.json and chat templates
  /// beside it.
  static Tokenizer open(const std::filesystem::path& folder);

  /// The same from files in memory; `where` names their origin in messages.
  static Tokenizer open(std::span<const TextAsset> assets, std::string_view where);

  /// The files of a model folder that `open` reads; empty when it has no tokenizer.
  static std::vector<TextAsset> collect_assets(const std::filesystem::path& folder);

  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  /// Ids that the vocabulary lacks have no text (models may have more rows than their tokenizer has
  /// tokens).
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;

  /// The token as the vocabulary spells it (`Ġthe`, `<0x0A>`).
  std::optional<std::string> token_text(int32_t id) const;
  std::optional<int32_t> token_id(std::string_view token) const;

  /// One more than the largest id.
  int32_t vocab_size() const;
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  std::optional<int32_t> unk_id() const;

  bool has_chat_template() const;

  /// The chat as its template prints it, with the behaviour of transformers' apply_chat_template.
  std::string render_chat(const ChatRequest& request) const;

  /// The ids of the rendered chat, without a second begin token. Text in messages, tools and
  /// documents never becomes a special token.
  std::vector<int32_t> encode_chat(const ChatRequest& request) const;

 private:
  friend class IncrementalDecoder;
  struct Handle;
  explicit Tokenizer(std::shared_ptr<const Handle> handle) : handle_(std::move(handle)) {}

  std::shared_ptr<const Handle> handle_;
};

/// Text of a growing list of ids. The pieces together are `decode` of all ids; no piece ends inside
/// a UTF-8 character; each id costs the same wherever it stands. One per sequence; not for several
/// threads at once.
class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  ~IncrementalDecoder();
  IncrementalDecoder(IncrementalDecoder&& other) noexcept;
  IncrementalDecoder& operator=(IncrementalDecoder&& other) noexcept;

  /// The text that `id` completes; empty while a character is incomplete.
  std::string push(int32_t id);

  /// What was held back. The decoder can be used for a new list of ids afterwards.
  std::string flush();

 private:
  struct Stream;

  Tokenizer tokenizer_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace millrace
