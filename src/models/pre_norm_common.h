// The frame of most decoders since Llama: x += attention(norm(x)), x += feed_forward(norm(x)). A
// family overrides what is its own.
#pragma once

#include "models/decoder_model_common.h"
#include "models/gqa_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {

/// How checkpoints name the parts of the frame.
struct PreNormNames {
  const char* model = "model";
  const char* embedding = "embed_tokens";
  const char* layers = "layers";
  const char* attention_norm = "input_layernorm";
  const char* attention = "self_attn";
  const char* ffn_norm = "post_attention_layernorm";
  const char* ffn = "mlp";
  const char* norm = "norm";
  const char* head = "lm_head";
};

/// By itself it is Llama; `Config` is a DecoderConfig and what the family adds to it.
template <typename Config>
class PreNormDecoder : public Decoder<Config> {
 public:
  explicit PreNormDecoder(Config config, const PreNormNames& names = {})
      : Decoder<Config>(std::move(config)), names_(names) {}

  nn::Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const nn::Scope root(trace), m = root[names_.model];
    nn::Value x = embedding(m[names_.embedding], step.input_ids);  // [T, dim]
    nn::Value angles;
    if (c_.rope.rotary_dim > 0) angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const nn::Scope s = m[names_.layers][i];
      x = x + attention(s[names_.attention], norm(s[names_.attention_norm], x),
                        {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = x + feed_forward(s[names_.ffn], norm(s[names_.ffn_norm], x), i);
    }
    x = norm(m[names_.norm], x);
    return logits(c_.tied ? m[names_.embedding] : root[names_.head], x);
  }

 protected:
  // Below the scope of each: ids i32 [T] -> [T, dim]; x [T, dim] -> [T, dim], logits [T, vocab].

  virtual nn::Value embedding(const nn::Scope& s, nn::Value ids) const {
    return nn::embedding(s, ids, c_.vocab, c_.dim);
  }
  virtual nn::Value norm(const nn::Scope& s, nn::Value x) const {
    return nn::rms_norm(s, x, c_.norm_eps);
  }
  virtual nn::Value attention(const nn::Scope& s, nn::Value x,
                              const nn::AttentionInputs& in) const {
    return gqa_attention(s, x, this->attention_attrs(in.layer), c_.biases, in);
  }
  virtual nn::Value feed_forward(const nn::Scope& s, nn::Value x, int64_t /*layer*/) const {
    return nn::gated_mlp(s, x, c_.ffn_dim, c_.activation, c_.biases.ffn);
  }

  virtual nn::Value logits(const nn::Scope& s, nn::Value x) const {
    return nn::logits(s, x, c_.vocab);
  }

  using Decoder<Config>::c_;

 private:
  PreNormNames names_;
};

}  // namespace millrace::models
