// Decoders of the usual form: what their config.json spells alike, and what a model answers from
// it.
#pragma once

#include <string>
#include <vector>

#include "models/decoder_common.h"
#include "models/rope_common.h"

namespace millrace::models {

/// Which linear layers have biases: Q, K and V; attention's output; the feed-forward.
struct Biases {
  bool qkv = false, out = false, ffn = false;
};

struct DecoderConfig {
  int64_t dim = 0, ffn_dim = 0, layers = 0, vocab = 0, max_positions = 0;
  nn::QkvSizes sizes{};
  double norm_eps = 0;
  std::string activation = {};
  bool tied = false;
  std::vector<int> windows = {};  // of each layer; 0: none
  int sink_tokens = 0;            // in front of a window
  ops::RopeAngles rope{};
  double alibi_max_bias = 0;  // 0: no ALiBi
  Biases biases{};
};

/// What holds in a family where its config.json says nothing, and how it spells keys.
struct DecoderDefaults {
  const char* activation = "silu";
  const char* activation_key = "hidden_act";
  const char* norm_eps_key = "rms_norm_eps";
  double norm_eps = 1e-5;
  int64_t ffn_dim = 0;  // 0: must be given
  int64_t max_positions = 2048;
  bool tied = false;
  int64_t head_size = 0;  // 0: hidden_size / num_attention_heads
  int64_t kv_heads = 0;   // 0: as many as query heads
  RopeDefaults rope = {};
  const char* rope_layer_type = "";  // whose RoPE it is, where that differs by kind of layer
};

/// Reads hidden_size, intermediate_size, num_hidden_layers, vocab_size, max_position_embeddings,
/// num_attention_heads, num_key_value_heads, head_dim, hidden_act, tie_word_embeddings, the eps of
/// norms and RoPE. Every layer has the window `window.window`.
DecoderConfig read_decoder(const HfConfig& json, const WindowOptions& window,
                           const DecoderDefaults& defaults);

/// The same by GPT-2's keys: n_embd, n_inner, n_layer, n_head, n_positions, activation_function,
/// layer_norm_epsilon. No RoPE.
DecoderConfig read_gpt_decoder(const HfConfig& json, const WindowOptions& window,
                               const char* default_activation, bool default_tied);

/// `attention_bias` for the four layers of attention, and `mlp_bias` where `ffn`.
Biases read_biases(const HfConfig& json, bool ffn = false);

/// `sliding_window`, unless null, for every layer.
void read_sliding_window(const HfConfig& json, DecoderConfig* config);

/// A model whose Config is a DecoderConfig and what the family adds to it.
template <typename Config>
class Decoder : public Model {
 public:
  explicit Decoder(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.max_positions; }
  std::vector<KvLayer> kv_layers() const override {
    return kv_layers_of(c_.sizes, c_.windows, c_.sink_tokens);
  }

 protected:
  /// The attributes of a layer's attention, positions included.
  ops::Attention attention_attrs(int64_t layer) const {
    const int window = c_.windows[static_cast<size_t>(layer)];
    ops::Attention attrs = attention_of(c_.sizes, window, c_.sink_tokens);
    attrs.rotary_dim = c_.rope.rotary_dim;
    attrs.alibi_max_bias = c_.alibi_max_bias;
    return attrs;
  }

  Config c_;
};

/// Tensors that checkpoints with Llama's names may hold in vain.
std::vector<std::string_view> usual_ignored_tensors();

/// Architecture::create of a Decoder and the function that reads its Config.
template <typename M, auto kReadConfig>
std::unique_ptr<Model> make_model(const HfConfig& json, const WindowOptions& window) {
  return std::make_unique<M>(kReadConfig(json, window));
}

}  // namespace millrace::models
