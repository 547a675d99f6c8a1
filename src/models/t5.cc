// T5, its version 1.1 and FLAN-T5: an encoder and a decoder without absolute positions, whose
// self-attention adds a bias by distance that all layers share; RMS norms in front; scores that are
// not scaled. The feed-forward is relu, or gated; the head is the embedding, then the decoder's
// output is scaled in the original T5, or a matrix of its own.
#include <cmath>

#include "base/str.h"
#include "models/seq2seq_common.h"
#include "nn/attention_layer.h"
#include "nn/layers.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config {
  int64_t dim, ffn_dim, encoder_layers, decoder_layers, heads, head_size, vocab, positions;
  int buckets, max_distance;
  double norm_eps;
  std::string activation;
  bool gated, tied, scaled_head;
};

// "relu", "gated-gelu", ...: transformers means the tanh form by gated-gelu, and by nothing else.
void read_feed_forward(const HfConfig& json, Config* c) {
  const std::string kind = json.get_string("feed_forward_proj", "relu");
  c->gated = kind.starts_with("gated-");
  c->activation = kind == "gated-gelu" ? "gelu_new" : kind.substr(c->gated ? 6 : 0);
  if (!nn::knows_activation(c->activation)) {
    json.fail("feed_forward_proj", str("is '", kind, "', which is not supported"),
              "use relu or gated-gelu");
  }
}

Config read_config(const HfConfig& json) {
  const int64_t layers = json.get_int("num_layers", 6);
  Config c{
      .dim = json.get_int("d_model"),
      .ffn_dim = json.get_int("d_ff"),
      .encoder_layers = layers,
      .decoder_layers = json.get_int("num_decoder_layers", layers),
      .heads = json.get_int("num_heads"),
      .head_size = json.get_int("d_kv"),
      .vocab = json.get_int("vocab_size"),
      .positions = json.get_int("n_positions", 512),
      .buckets = static_cast<int>(json.get_int("relative_attention_num_buckets", 32)),
      .max_distance = static_cast<int>(json.get_int("relative_attention_max_distance", 128)),
      .norm_eps = json.get_float("layer_norm_epsilon", 1e-6, kPositive),
      .activation = "",
      .gated = false,
      .tied = json.get_bool("tie_word_embeddings", true),
      .scaled_head =
          json.get_bool("scale_decoder_outputs", json.get_bool("tie_word_embeddings", true)),
  };
  read_feed_forward(json, &c);
  return c;
}

class T5 : public Model {
 public:
  explicit T5(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.positions; }
  std::optional<EncoderShape> encoder() const override {
    return EncoderShape{.max_rows = c_.positions};
  }

  std::vector<KvLayer> kv_layers() const override {
    return encoder_decoder_kv_layers(c_.decoder_layers, c_.heads, c_.head_size);
  }

  std::vector<Value> forward_encoder(nn::Trace& trace, const nn::EncoderInputs& in) const override {
    const Scope root(trace), stack = root["encoder"];
    Value x = nn::embedding(root["shared"], in.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value bias = relative_bias(stack);
    const ops::AttentionEncoder attention{.heads = static_cast<int>(c_.heads),
                                          .kv_heads = static_cast<int>(c_.heads),
                                          .head_size = static_cast<int>(c_.head_size),
                                          .v_head_size = static_cast<int>(c_.head_size),
                                          .scale = 1,
                                          .relative_buckets = c_.buckets,
                                          .relative_max_distance = c_.max_distance};
    for (int64_t i = 0; i < c_.encoder_layers; ++i) {
      const Scope layers = stack["block"][i]["layer"], s = layers[0]["SelfAttention"];
      const Value h = norm(layers[0], x);
      const Value q = project(s, "q", h), k = project(s, "k", h), v = project(s, "v", h);
      const Value o = nn::encoder_attention(attention, q, k, v, nn::owners(in), bias);
      x = x + nn::linear(s["o"], o, c_.dim);
      x = x + feed_forward(layers[1], x);
    }
    x = nn::rms_norm(stack["final_layer_norm"], x, c_.norm_eps);

    std::vector<Value> caches;
    for (int64_t i = 0; i < c_.decoder_layers; ++i) {
      const Scope s = root["decoder"]["block"][i]["layer"][1]["EncDecAttention"];
      const Value k = project(s, "k", x), v = project(s, "v", x);
      caches.push_back(nn::cross_append({.kv_heads = static_cast<int>(c_.heads),
                                         .head_size = static_cast<int>(c_.head_size),
                                         .v_head_size = static_cast<int>(c_.head_size)},
                                        k, v, in, static_cast<size_t>(i)));
    }
    return caches;
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), stack = root["decoder"];
    Value x = nn::embedding(root["shared"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value bias = relative_bias(stack);
    for (int64_t i = 0; i < c_.decoder_layers; ++i) {
      const Scope layers = stack["block"][i]["layer"];
      x = x + self_attention(layers[0], x, step, bias, static_cast<int>(i));
      x = x + cross_attention(layers[1], x, step, static_cast<size_t>(c_.decoder_layers + i));
      x = x + feed_forward(layers[2], x);
    }
    x = nn::rms_norm(stack["final_layer_norm"], x, c_.norm_eps);
    if (c_.scaled_head) x = nn::scale(x, 1 / std::sqrt(static_cast<double>(c_.dim)));
    // A checkpoint that has a head means it, whatever its configuration says.
    const bool own_head = !c_.tied || root.has("lm_head.weight");
    return nn::logits(own_head ? root["lm_head"] : root["shared"], x, c_.vocab);
  }

 private:
  Value norm(const Scope& s, Value x) const {
    return nn::rms_norm(s["layer_norm"], x, c_.norm_eps);
  }

  Value project(const Scope& s, std::string_view leaf, Value x) const {
    return nn::linear(s[leaf], x, c_.heads * c_.head_size);
  }

  /// The first layer's, for all: [buckets, heads].
  Value relative_bias(const Scope& stack) const {
    const Scope s = stack["block"][0]["layer"][0]["SelfAttention"]["relative_attention_bias"];
    return s.weight("weight", {c_.buckets, c_.heads});
  }

  Value self_attention(const Scope& layer, Value x, const nn::StepInputs& step, Value bias,
                       int index) const {
    const Scope s = layer["SelfAttention"];
    const Value h = norm(layer, x);
    const Value q = project(s, "q", h), k = project(s, "k", h), v = project(s, "v", h);
    nn::AttentionInputs in{.step = step, .layer = index};
    in.relative_bias = bias;
    const Value o = nn::attention({.heads = static_cast<int>(c_.heads),
                                   .kv_heads = static_cast<int>(c_.heads),
                                   .head_size = static_cast<int>(c_.head_size),
                                   .v_head_size = static_cast<int>(c_.head_size),
                                   .scale = 1,
                                   .relative_buckets = c_.buckets,
                                   .relative_max_distance = c_.max_distance},
                                  q, k, v, in);
    return nn::linear(s["o"], o, c_.dim);
  }

  Value cross_attention(const Scope& layer, Value x, const nn::StepInputs& step,
                        size_t cache) const {
    const Scope s = layer["EncDecAttention"];
    const Value o = nn::cross_attention({.heads = static_cast<int>(c_.heads),
                                         .kv_heads = static_cast<int>(c_.heads),
                                         .head_size = static_cast<int>(c_.head_size),
                                         .v_head_size = static_cast<int>(c_.head_size),
                                         .scale = 1},
                                        project(s, "q", norm(layer, x)), step, cache);
    return nn::linear(s["o"], o, c_.dim);
  }

  Value feed_forward(const Scope& layer, Value x) const {
    const Scope s = layer["DenseReluDense"];
    const Value h = norm(layer, x);
    if (!c_.gated) {
      const Value inner = nn::activation(nn::linear(s["wi"], h, c_.ffn_dim), c_.activation);
      return nn::linear(s["wo"], inner, c_.dim);
    }
    const Value gate = nn::linear(s["wi_0"], h, c_.ffn_dim);
    const Value up = nn::linear(s["wi_1"], h, c_.ffn_dim);
    return nn::linear(s["wo"], nn::activation(gate, c_.activation) * up, c_.dim);
  }

  Config c_;
};

}  // namespace

Architecture model_t5() {
  return {.names = {"T5ForConditionalGeneration"},
          .ignored_tensors =
              {R"((encoder|decoder)\.embed_tokens\.weight)",
               R"(decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight)"},
          .create = [](const HfConfig& config, const WindowOptions&) -> std::unique_ptr<Model> {
            return std::make_unique<T5>(read_config(config));
          }};
}

}  // namespace millrace::models
