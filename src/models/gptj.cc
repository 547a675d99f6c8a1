// GPT-J and CodeGen: attention and feed-forward read the same normed input, rotary positions on
// the first dimensions of each head in neighbouring pairs, a head with bias. CodeGen stores Q, V
// and K in one tensor, in four blocks of heads.
#include "base/str.h"
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

constexpr int64_t kCodeGenBlocks = 4;

struct Config : DecoderConfig {
  bool codegen = false;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_gpt_decoder(json, window, "gelu_new", false)};
  c.max_positions = json.get_int("n_positions", 2048);
  c.codegen = json.architecture() == "CodeGenForCausalLM";
  if (c.codegen && c.sizes.heads % kCodeGenBlocks != 0) {
    json.fail("n_head", str("is ", c.sizes.heads, ", not a multiple of ", kCodeGenBlocks));
  }
  const int64_t rotary_dim = json.get_int("rotary_dim", 64);
  if (rotary_dim > c.sizes.head_size || rotary_dim % 2 != 0 || json.is_null("rotary_dim")) {
    json.fail("rotary_dim", "is not an even number up to the head size",
              str("a head has n_embd / n_head = ", c.sizes.head_size, " elements"));
  }
  c.rope.rotary_dim = static_cast<int>(rotary_dim);
  return c;
}

class Gptj : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace);
    // Checkpoints saved from the bare model lack the prefix.
    const Scope m = root.has("wte.weight") ? root : root["transformer"];
    Value x = nn::embedding(m["wte"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["h"][i];
      const Value h = nn::layer_norm(s["ln_1"], x, c_.norm_eps);
      const Value a =
          attention(s["attn"], h, {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = a + nn::mlp(s["mlp"], h, c_.ffn_dim, c_.activation, "fc_in", "fc_out") + x;
    }
    x = nn::layer_norm(m["ln_f"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["wte"] : root["lm_head"], x, c_.vocab,
                      root["lm_head"].weight("bias", {c_.vocab}));
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] =
        c_.codegen ? codegen_qkv(s["qkv_proj"], x) : nn::separate_qkv(s, x, c_.sizes, false);
    ops::Attention attrs = attention_attrs(in.layer);
    attrs.interleaved = true;
    s.enter();
    return nn::linear(s["out_proj"], nn::attention(attrs, q, k, v, in), c_.dim);
  }

  nn::Qkv codegen_qkv(const Scope& s, Value x) const {
    const int64_t rows = c_.dim / kCodeGenBlocks;
    const auto part = [&](int64_t index) {
      return nn::linear_rows(s, x, 3 * c_.dim, {index * rows, rows, 3 * rows, kCodeGenBlocks},
                             false);
    };
    return {.q = part(0), .k = part(2), .v = part(1)};
  }
};

}  // namespace

Architecture model_gptj() {
  return {
      .names = {"GPTJForCausalLM", "CodeGenForCausalLM"},
      .ignored_tensors = {R"((transformer\.)?h\.\d+\.attn\.(masked_bias|bias|causal_mask))",
                          R"((transformer\.)?h\.\d+\.attn\.embed_positions)", R"(lm_head\.weight)"},
      .create = make_model<Gptj, read_config>};
}

}  // namespace millrace::models
