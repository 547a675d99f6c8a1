// BERT and RoBERTa: encoders with learned positions and norms behind the sums, whose head tells the
// token that belongs at each position. Texts are one segment: the first row of the token types.
#include <cmath>

#include "base/str.h"
#include "models/decoder_common.h"
#include "nn/encoder_layers.h"
#include "nn/layers.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config {
  int64_t dim, ffn_dim, layers, heads, vocab, positions, types;
  int position_offset;  // row of the first position in the table
  double norm_eps;
  std::string activation;
  bool roberta, has_head;
};

Config read_config(const HfConfig& json) {
  const std::string name = json.architecture();
  for (const char* key : {"is_decoder", "add_cross_attention"}) {
    if (json.get_bool(key, false)) json.fail(key, "is not supported", "use an encoder");
  }
  if (!json.get_bool("tie_word_embeddings", true)) {
    json.fail("tie_word_embeddings", "is false, which is not supported for this family",
              "use a model whose head is its embedding");
  }
  const std::string positions = json.get_string("position_embedding_type", "absolute");
  if (positions != "absolute") {
    json.fail("position_embedding_type", str("is '", positions, "', which is not supported"),
              "use a model with absolute positions");
  }
  Config c{
      .dim = json.get_int("hidden_size"),
      .ffn_dim = json.get_int("intermediate_size"),
      .layers = json.get_int("num_hidden_layers"),
      .heads = json.get_int("num_attention_heads"),
      .vocab = json.get_int("vocab_size"),
      .positions = json.get_int("max_position_embeddings", 512),
      .types = json.get_int("type_vocab_size", 2),
      .position_offset = 0,
      .norm_eps = json.get_float("layer_norm_eps", 1e-12, kPositive),
      .activation = read_activation(json, "hidden_act", "gelu"),
      .roberta = name.starts_with("Roberta"),
      .has_head = name.ends_with("ForMaskedLM"),
  };
  split_heads(json, "hidden_size", c.dim, "num_attention_heads", c.heads);
  // RoBERTa's positions begin behind that of the padding token.
  if (c.roberta)
    c.position_offset = static_cast<int>(json.get_int("pad_token_id", 1, kTokenId)) + 1;
  if (c.position_offset >= c.positions) {
    json.fail("max_position_embeddings", str("is ", c.positions, ", which leaves no position"));
  }
  return c;
}

class Bert : public Model {
 public:
  explicit Bert(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.positions - c_.position_offset; }
  std::vector<KvLayer> kv_layers() const override { return {}; }
  bool is_encoder() const override { return true; }
  bool has_head() const override { return c_.has_head; }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace);
    const Scope m = !c_.has_head ? root : root[c_.roberta ? "roberta" : "bert"];
    Value x = embed(m["embeddings"], step);  // [T, dim]
    for (int64_t i = 0; i < c_.layers; ++i)
      x = layer(m["encoder"]["layer"][i], x, step);
    if (!c_.has_head) {
      trace.hidden = x;
      return x;
    }
    const Value logits = c_.roberta ? roberta_head(root, m, x) : bert_head(root, m, x);
    trace.hidden = x;
    return logits;
  }

 private:
  Value norm(const Scope& s, Value x) const { return nn::layer_norm(s, x, c_.norm_eps); }

  Value embed(const Scope& s, const nn::StepInputs& step) const {
    const Value words = nn::embedding(s["word_embeddings"], step.input_ids, c_.vocab, c_.dim);
    const Value places = nn::embedding(s["position_embeddings"], step.position_ids, c_.positions,
                                       c_.dim, c_.position_offset);
    const Value type = s["token_type_embeddings"].weight_rows(
        "weight", {c_.types, c_.dim}, {.first = 0, .count = 1, .stride = 1, .pieces = 1});
    return norm(s["LayerNorm"], nn::add_row(words + places, type));
  }

  Value layer(const Scope& s, Value x, const nn::StepInputs& step) const {
    const Scope attn = s["attention"], self = attn["self"], out = attn["output"];
    const Value q = nn::linear(self["query"], x, c_.dim, true);
    const Value k = nn::linear(self["key"], x, c_.dim, true);
    const Value v = nn::linear(self["value"], x, c_.dim, true);
    self.enter();
    const auto size = static_cast<int>(c_.dim / c_.heads);
    const Value o = nn::encoder_attention({.heads = static_cast<int>(c_.heads),
                                           .kv_heads = static_cast<int>(c_.heads),
                                           .head_size = size,
                                           .v_head_size = size,
                                           .scale = 1 / std::sqrt(static_cast<double>(size))},
                                          q, k, v, nn::owners(step));
    x = norm(out["LayerNorm"], x + nn::linear(out["dense"], o, c_.dim, true));
    const Value inner = nn::linear(s["intermediate"]["dense"], x, c_.ffn_dim, true);
    const Value h =
        nn::linear(s["output"]["dense"], nn::activation(inner, c_.activation), c_.dim, true);
    return norm(s["output"]["LayerNorm"], x + h);
  }

  Value bert_head(const Scope& root, const Scope& m, Value x) const {
    const Scope head = root["cls"]["predictions"], transform = head["transform"];
    const Value h = nn::activation(nn::linear(transform["dense"], x, c_.dim, true), c_.activation);
    return logits(head, m, norm(transform["LayerNorm"], h));
  }

  Value roberta_head(const Scope& root, const Scope& m, Value x) const {
    const Scope head = root["lm_head"];
    const Value h = nn::activation(nn::linear(head["dense"], x, c_.dim, true), "gelu");
    return logits(head, m, norm(head["layer_norm"], h));
  }

  Value logits(const Scope& head, const Scope& m, Value x) const {
    const Value bias = head.weight("bias", {c_.vocab});
    return nn::logits(m["embeddings"]["word_embeddings"], x, c_.vocab, bias);
  }

  Config c_;
};

}  // namespace

Architecture model_bert() {
  return {.names = {"BertForMaskedLM", "BertModel", "RobertaForMaskedLM", "RobertaModel"},
          .ignored_tensors = {R"((bert\.|roberta\.)?pooler\.dense\.(weight|bias))",
                              R"((bert\.|roberta\.)?embeddings\.position_ids)",
                              R"(cls\.seq_relationship\.(weight|bias))",
                              R"((cls\.predictions|lm_head)\.decoder\.(weight|bias))"},
          .create = [](const HfConfig& config, const WindowOptions&) -> std::unique_ptr<Model> {
            return std::make_unique<Bert>(read_config(config));
          }};
}

}  // namespace millrace::models
