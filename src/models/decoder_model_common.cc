#include "models/decoder_model_common.h"

namespace millrace::models {

DecoderConfig read_decoder(const HfConfig& json, const WindowOptions& window,
                           const DecoderDefaults& defaults) {
  const int64_t dim = json.get_int("hidden_size");
  const int64_t heads = json.get_int("num_attention_heads");
  const int64_t kv_heads =
      json.get_int("num_key_value_heads", defaults.kv_heads > 0 ? defaults.kv_heads : heads);
  const int64_t layers = json.get_int("num_hidden_layers");
  int64_t head_size = defaults.head_size;
  if (json.has("head_dim")) {
    head_size = json.get_int("head_dim");
  } else if (head_size == 0) {
    head_size = split_heads(json, "hidden_size", dim, "num_attention_heads", heads);
  }
  DecoderConfig c{
      .dim = dim,
      .ffn_dim = defaults.ffn_dim > 0 ? json.get_int("intermediate_size", defaults.ffn_dim)
                                      : json.get_int("intermediate_size"),
      .layers = layers,
      .vocab = json.get_int("vocab_size"),
      .max_positions = json.get_int("max_position_embeddings", defaults.max_positions),
      .sizes = check_heads(json, "num_attention_heads", heads, "num_key_value_heads", kv_heads,
                           head_size),
      .norm_eps = json.get_float(defaults.norm_eps_key, defaults.norm_eps, kPositive),
      .activation = read_activation(json, defaults.activation_key, defaults.activation),
      .tied = json.get_bool("tie_word_embeddings", defaults.tied),
      .windows = std::vector<int>(static_cast<size_t>(layers), window.window),
      .sink_tokens = window.sink_tokens,
      .rope = rope_options(json, head_size, defaults.rope, defaults.rope_layer_type),
  };
  c.max_positions = rope_positions(c.rope, c.max_positions);
  return c;
}

DecoderConfig read_gpt_decoder(const HfConfig& json, const WindowOptions& window,
                               const char* default_activation, bool default_tied) {
  const int64_t dim = json.get_int("n_embd");
  const int64_t heads = json.get_int("n_head");
  const int64_t layers = json.get_int("n_layer");
  return {
      .dim = dim,
      .ffn_dim = json.get_int("n_inner", 4 * dim),
      .layers = layers,
      .vocab = json.get_int("vocab_size"),
      .max_positions = json.get_int("n_positions", 1024),
      .sizes = {heads, heads, split_heads(json, "n_embd", dim, "n_head", heads)},
      .norm_eps = json.get_float("layer_norm_epsilon", 1e-5, kPositive),
      .activation = read_activation(json, "activation_function", default_activation),
      .tied = json.get_bool("tie_word_embeddings", default_tied),
      .windows = std::vector<int>(static_cast<size_t>(layers), window.window),
      .sink_tokens = window.sink_tokens,
  };
}

Biases read_biases(const HfConfig& json, bool ffn) {
  const bool attention = json.get_bool("attention_bias", false);
  return {attention, attention, ffn && json.get_bool("mlp_bias", false)};
}

void read_sliding_window(const HfConfig& json, DecoderConfig* config) {
  if (!json.has("sliding_window")) return;
  config->windows.assign(config->windows.size(), static_cast<int>(json.get_int("sliding_window")));
}

std::vector<std::string_view> usual_ignored_tensors() {
  return {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)", R"(lm_head\.weight)"};
}

}  // namespace millrace::models
