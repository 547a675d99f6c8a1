#include "models/seq2seq_common.h"

#include <cmath>

#include "base/str.h"
#include "nn/attention_layer.h"
#include "nn/layers.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

constexpr double kNormEps = 1e-5;  // torch's default; no configuration has it

Seq2SeqLayer read_layer(const HfConfig& json, const std::string& side) {
  const std::string heads_key = side + "_attention_heads";
  Seq2SeqLayer layer{.dim = json.get_int("d_model"),
                     .heads = json.get_int(heads_key),
                     .ffn_dim = json.get_int(side + "_ffn_dim"),
                     .activation = json.get_string("activation_function", "gelu")};
  if (layer.dim % layer.heads != 0) {
    json.fail("d_model",
              str("is ", layer.dim, ", not a multiple of ", heads_key, " ", layer.heads));
  }
  if (!nn::knows_activation(layer.activation)) {
    json.fail("activation_function", str("is '", layer.activation, "', which is not supported"),
              "supported are silu, gelu, gelu_new and relu");
  }
  return layer;
}

double scale_of(const Seq2SeqLayer& layer) {
  return 1 / std::sqrt(static_cast<double>(layer.head_size()));
}

Value project(const Scope& s, std::string_view leaf, Value x, const Seq2SeqLayer& layer) {
  return nn::linear(s[leaf], x, layer.dim, leaf != "k_proj" || layer.k_bias);
}

/// x + f(norm(x)), or norm(x + f(x)).
template <typename F>
Value residual(const Scope& norm, Value x, bool pre_norm, const F& f) {
  if (pre_norm) return x + f(nn::layer_norm(norm, x, kNormEps));
  return nn::layer_norm(norm, x + f(x), kNormEps);
}

Value feed_forward(const Scope& s, Value x, const Seq2SeqLayer& layer) {
  return residual(s["final_layer_norm"], x, layer.pre_norm, [&](Value h) {
    const Value inner =
        nn::activation(nn::linear(s["fc1"], h, layer.ffn_dim, true), layer.activation);
    return nn::linear(s["fc2"], inner, layer.dim, true);
  });
}

}  // namespace

Seq2SeqConfig read_seq2seq_config(const HfConfig& json) {
  Seq2SeqConfig c{.vocab = json.get_int("vocab_size"),
                  .encoder_layers = json.get_int("encoder_layers"),
                  .decoder_layers = json.get_int("decoder_layers"),
                  .encoder = read_layer(json, "encoder"),
                  .decoder = read_layer(json, "decoder")};
  if (json.get_bool("scale_embedding", false)) {
    c.embed_scale = std::sqrt(static_cast<double>(c.encoder.dim));
  }
  return c;
}

std::vector<KvLayer> encoder_decoder_kv_layers(int64_t layers, int64_t heads, int64_t head_size) {
  KvLayer layer{.kv_heads = static_cast<int>(heads),
                .k_size = static_cast<int>(head_size),
                .v_size = static_cast<int>(head_size)};
  std::vector<KvLayer> all(static_cast<size_t>(layers), layer);
  layer.cross = true;
  all.insert(all.end(), static_cast<size_t>(layers), layer);
  return all;
}

Value seq2seq_encoder_layer(const Scope& s, Value x, const Seq2SeqLayer& layer,
                            const nn::RowOwners& rows) {
  const Scope attn = s["self_attn"];
  x = residual(s["self_attn_layer_norm"], x, layer.pre_norm, [&](Value h) {
    const Value q = project(attn, "q_proj", h, layer), k = project(attn, "k_proj", h, layer);
    const Value v = project(attn, "v_proj", h, layer);
    attn.enter();
    const Value o = nn::encoder_attention({.heads = static_cast<int>(layer.heads),
                                           .kv_heads = static_cast<int>(layer.heads),
                                           .head_size = layer.head_size(),
                                           .v_head_size = layer.head_size(),
                                           .scale = scale_of(layer)},
                                          q, k, v, rows);
    return project(attn, "out_proj", o, layer);
  });
  return feed_forward(s, x, layer);
}

Value seq2seq_decoder_layer(const Scope& s, Value x, const Seq2SeqLayer& layer,
                            const nn::StepInputs& step, int64_t index, int64_t layers) {
  const Scope self = s["self_attn"], cross = s["encoder_attn"];
  const int heads = static_cast<int>(layer.heads), size = layer.head_size();
  x = residual(s["self_attn_layer_norm"], x, layer.pre_norm, [&](Value h) {
    const Value q = project(self, "q_proj", h, layer), k = project(self, "k_proj", h, layer);
    const Value v = project(self, "v_proj", h, layer);
    self.enter();
    const Value o = nn::attention({.heads = heads,
                                   .kv_heads = heads,
                                   .head_size = size,
                                   .v_head_size = size,
                                   .scale = scale_of(layer)},
                                  q, k, v, {.step = step, .layer = static_cast<int>(index)});
    return project(self, "out_proj", o, layer);
  });
  x = residual(s["encoder_attn_layer_norm"], x, layer.pre_norm, [&](Value h) {
    const Value q = project(cross, "q_proj", h, layer);
    cross.enter();
    const Value o = nn::cross_attention({.heads = heads,
                                         .kv_heads = heads,
                                         .head_size = size,
                                         .v_head_size = size,
                                         .scale = scale_of(layer)},
                                        q, step, static_cast<size_t>(layers + index));
    return project(cross, "out_proj", o, layer);
  });
  return feed_forward(s, x, layer);
}

void require_tied_words(const HfConfig& json) {
  if (json.get_bool("tie_word_embeddings", true)) return;
  json.fail("tie_word_embeddings", "is false, which is not supported for this family",
            "use a model whose two sides share their embedding");
}

Value seq2seq_logits(const Scope& root, const Scope& head, Value x, int64_t vocabulary) {
  const Value bias = root.reshaped_weight("final_logits_bias", {1, vocabulary}, {vocabulary});
  return nn::logits(head, x, vocabulary, bias);
}

std::vector<Value> seq2seq_cross_caches(const Scope& decoder, Value x, const Seq2SeqLayer& layer,
                                        int64_t layers, const nn::EncoderInputs& in) {
  std::vector<Value> caches;
  for (int64_t i = 0; i < layers; ++i) {
    const Scope s = decoder["layers"][i]["encoder_attn"];
    const Value k = project(s, "k_proj", x, layer), v = project(s, "v_proj", x, layer);
    s.enter();
    caches.push_back(nn::cross_append({.kv_heads = static_cast<int>(layer.heads),
                                       .head_size = layer.head_size(),
                                       .v_head_size = layer.head_size()},
                                      k, v, in, static_cast<size_t>(i)));
  }
  return caches;
}

}  // namespace millrace::models
