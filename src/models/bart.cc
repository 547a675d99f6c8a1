// BART and mBART: learned positions from row 2 of their table on, a norm of the embeddings, the
// head is the embedding and has a bias. mBART has its norms in front, and one more at the end of
// each side.
#include "models/seq2seq_common.h"
#include "nn/layers.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

constexpr int kPositionOffset = 2;
constexpr double kNormEps = 1e-5;

struct Config {
  Seq2SeqConfig sizes;
  int64_t positions = 0;
};

Config read_config(const HfConfig& json) {
  require_tied_words(json);
  Config c{.sizes = read_seq2seq_config(json),
           .positions = json.get_int("max_position_embeddings", 1024)};
  c.sizes.encoder.pre_norm = c.sizes.decoder.pre_norm = json.architecture().starts_with("MBart");
  return c;
}

class Bart : public Model {
 public:
  explicit Bart(Config config) : c_(std::move(config)), s_(c_.sizes) {}

  int64_t vocab_size() const override { return s_.vocab; }
  int64_t max_positions() const override { return c_.positions; }
  std::optional<EncoderShape> encoder() const override {
    return EncoderShape{.max_rows = c_.positions};
  }
  std::vector<KvLayer> kv_layers() const override {
    return encoder_decoder_kv_layers(s_.decoder_layers, s_.decoder.heads, s_.decoder.head_size());
  }

  std::vector<Value> forward_encoder(nn::Trace& trace, const nn::EncoderInputs& in) const override {
    const Scope root(trace), m = root["model"], stack = m["encoder"];
    Value x = embed(m, stack, in.input_ids, in.position_ids);  // [T, dim]
    for (int64_t i = 0; i < s_.encoder_layers; ++i)
      x = seq2seq_encoder_layer(stack["layers"][i], x, s_.encoder, nn::owners(in));
    x = last_norm(stack, x);
    return seq2seq_cross_caches(m["decoder"], x, s_.decoder, s_.decoder_layers, in);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"], stack = m["decoder"];
    Value x = embed(m, stack, step.input_ids, step.position_ids);  // [T, dim]
    for (int64_t i = 0; i < s_.decoder_layers; ++i) {
      x = seq2seq_decoder_layer(stack["layers"][i], x, s_.decoder, step, i, s_.decoder_layers);
    }
    x = last_norm(stack, x);
    return seq2seq_logits(root, m["shared"], x, s_.vocab);
  }

 private:
  Value embed(const Scope& m, const Scope& stack, Value ids, Value positions) const {
    const Value words =
        nn::scale(nn::embedding(m["shared"], ids, s_.vocab, s_.encoder.dim), s_.embed_scale);
    const Value places =
        nn::embedding(stack["embed_positions"], positions, c_.positions + kPositionOffset,
                      s_.encoder.dim, kPositionOffset);
    return nn::layer_norm(stack["layernorm_embedding"], words + places, kNormEps);
  }

  Value last_norm(const Scope& stack, Value x) const {
    return s_.encoder.pre_norm ? nn::layer_norm(stack["layer_norm"], x, kNormEps) : x;
  }

  Config c_;
  const Seq2SeqConfig& s_;
};

}  // namespace

Architecture model_bart() {
  return {.names = {"BartForConditionalGeneration", "MBartForConditionalGeneration"},
          .ignored_tensors = {R"(model\.(encoder|decoder)\.embed_tokens\.weight)",
                              R"(lm_head\.weight)", R"(model\.(encoder|decoder)\.version)"},
          .create = [](const HfConfig& config, const WindowOptions&) -> std::unique_ptr<Model> {
            return std::make_unique<Bart>(read_config(config));
          }};
}

}  // namespace millrace::models
