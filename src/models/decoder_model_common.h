// Decoders of the usual form: what their config.json spells alike, and what a model answers from
// it.
#pragma once

#include <string>
#include <vector>

#include "models/decoder_common.h"
#include "models/rope_common.h"

namespace millrace::models {

struct DecoderConfig {
  int64_t dim = 0, ffn_dim = 0, layers = 0, vocab = 0, max_positions = 0;
  nn::QkvSizes sizes{};
  double norm_eps = 0;
  std::string activation;
  bool tied = false;
  std::vector<int> windows;  // of each layer; 0: none
  int sink_tokens = 0;       // in front of a window
  ops::RopeAngles rope{};
};

/// What holds in a family where its config.json says nothing, and how it spells keys.
struct DecoderDefaults {
  const char* activation = "silu";
  const char* norm_eps_key = "rms_norm_eps";
  double norm_eps = 1e-5;
  int64_t max_positions = 2048;
  bool tied = false;
  int64_t head_size = 0;  // 0: hidden_size / num_attention_heads
  int64_t kv_heads = 0;   // 0: as many as query heads
  RopeDefaults rope = {};
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
  /// The attributes of a layer's attention, RoPE included.
  ops::Attention attention_attrs(int64_t layer) const {
    const int window = c_.windows[static_cast<size_t>(layer)];
    ops::Attention attrs = attention_of(c_.sizes, window, c_.sink_tokens);
    attrs.rotary_dim = c_.rope.rotary_dim;
    return attrs;
  }

  Config c_;
};

/// Architecture::create of a Decoder and the function that reads its Config.
template <typename M, auto kReadConfig>
std::unique_ptr<Model> make_model(const HfConfig& json, const WindowOptions& window) {
  return std::make_unique<M>(kReadConfig(json, window));
}

}  // namespace millrace::models
