// config.json as Hugging Face writes it, read by key with type and range checked: a wrong value is
// bad input that names file and key. The class remembers which keys were read, so that a model can
// refuse those it does not know.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/dtype.h"

namespace millrace {

/// Both ends included.
struct IntRange {
  int64_t min;
  int64_t max;
};
struct FloatRange {
  double min;
  double max;
};

inline constexpr IntRange kAnyInt = {INT64_MIN, INT64_MAX};
inline constexpr IntRange kSize = {1, 1 << 30};  // layers, heads, widths, vocabularies
inline constexpr IntRange kTokenId = {0, (1LL << 31) - 1};
inline constexpr FloatRange kAnyFloat = {-1e308, 1e308};
inline constexpr FloatRange kPositive = {1e-300, 1e308};

/// A JSON object. Copies share the document and the memory of what was read. `null` counts as
/// absent, as in transformers.
class HfConfig {
 public:
  /// Reads FOLDER/config.json.
  static HfConfig load(const std::string& folder);
  static HfConfig load_file(const std::string& path);
  /// `path` is for messages.
  static HfConfig parse(std::string_view text, const std::string& path);

  bool has(std::string_view key) const;
  bool is_null(std::string_view key) const;
  /// True for an object; the other getters throw on one.
  bool is_object(std::string_view key) const;
  bool is_list(std::string_view key) const;
  bool is_string(std::string_view key) const;
  std::vector<std::string> keys() const;

  // Without a fallback a key is required. Integers may be written as floats of integral value (1e6,
  // 4096.0).
  int64_t get_int(std::string_view key, IntRange range = kSize) const;
  int64_t get_int(std::string_view key, int64_t fallback, IntRange range = kSize) const;
  double get_float(std::string_view key, FloatRange range = kAnyFloat) const;
  double get_float(std::string_view key, double fallback, FloatRange range = kAnyFloat) const;
  bool get_bool(std::string_view key, bool fallback) const;
  std::string get_string(std::string_view key) const;
  std::string get_string(std::string_view key, std::string_view fallback) const;
  // Lists: empty when absent.
  std::vector<std::string> get_strings(std::string_view key) const;
  std::vector<int64_t> get_ints(std::string_view key, IntRange range = kAnyInt) const;
  std::vector<double> get_floats(std::string_view key, FloatRange range = kAnyFloat) const;
  std::vector<std::vector<int64_t>> get_int_lists(std::string_view key,
                                                  IntRange range = kAnyInt) const;
  /// A nested object, such as text_config.
  HfConfig object(std::string_view key) const;

  /// `architectures[0]`, else the usual class of `model_type`.
  std::string architecture() const;
  /// `dtype`, or `torch_dtype` as it was called; empty when neither is there.
  std::optional<ir::DType> dtype() const;

  /// Marks a key, and all below it, as known to make no difference.
  void ignore(std::string_view key) const;
  /// Keys present here and below that nobody asked for, with their path ("rope_scaling.color"),
  /// sorted.
  std::vector<std::string> unread_keys() const;

  /// Throws bad input: `KEY PROBLEM (config.json)`.
  [[noreturn]] void fail(std::string_view key, std::string_view problem,
                         std::string_view advice = "") const;

 private:
  struct Document;
  HfConfig(std::shared_ptr<Document> document, const void* object, std::string prefix);
  /// The value, noted as read; null when absent or `null`.
  const void* find(std::string_view key) const;
  const void* need(std::string_view key) const;

  std::shared_ptr<Document> document_;
  const void* object_;  // a JSON object inside the document
  std::string prefix_;  // "text_config." or empty
};

/// Rotary position embeddings: `rope_parameters` (also one per layer type), or `rope_theta` and
/// `rope_scaling` as it was before, with the defaults of transformers.
struct RopeConfig {
  std::string rule = "default";  // default, linear, dynamic, llama3, yarn, longrope
  int64_t rotary_dim = 0;        // head size x partial_rotary_factor
  double theta = 10000;
  double factor = 1;
  double max_position = 0;           // max_position_embeddings; 0: absent
  double original_max_position = 0;  // llama3, yarn, longrope
  double attention_factor = 0;       // 0: by the rule's formula
  double low_freq_factor = 1, high_freq_factor = 4;
  double beta_fast = 32, beta_slow = 1;
  double mscale = 0, mscale_all_dim = 0;
  bool truncate = true;
  std::vector<double> short_factor, long_factor;  // [rotary_dim / 2]
};

/// What holds in a family where its config.json says nothing, and how it spells the keys outside
/// `rope_parameters`.
struct RopeDefaults {
  double theta = 10000;
  double partial = 1;  // rotary dimension / head size
  const char* theta_key = "rope_theta";
  const char* partial_key = "partial_rotary_factor";
};

/// `layer_type` ("full_attention", ...) chooses where the parameters are given per layer type.
RopeConfig read_rope_config(const HfConfig& config, int64_t head_dim,
                            const RopeDefaults& defaults = {}, std::string_view layer_type = "");

}  // namespace millrace
