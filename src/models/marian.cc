// Marian (Opus-MT): BART's layers with sines and cosines for positions and no norm of the
// embeddings.
#include "models/seq2seq_common.h"
#include "nn/layers.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config {
  Seq2SeqConfig sizes;
  int64_t positions = 0;
};

Config read_config(const HfConfig& json) {
  require_tied_words(json);
  Config c{.sizes = read_seq2seq_config(json),
           .positions = json.get_int("max_position_embeddings", 1024)};
  if (!json.get_bool("share_encoder_decoder_embeddings", true) ||
      json.get_int("decoder_vocab_size", c.sizes.vocab) != c.sizes.vocab) {
    json.fail("share_encoder_decoder_embeddings", "is false, which is not supported",
              "use a model with one vocabulary for both sides");
  }
  return c;
}

class Marian : public Model {
 public:
  explicit Marian(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.sizes.vocab; }
  int64_t max_positions() const override { return c_.positions; }
  std::optional<EncoderShape> encoder() const override {
    return EncoderShape{.max_rows = c_.positions};
  }
  std::vector<KvLayer> kv_layers() const override {
    const Seq2SeqLayer& layer = c_.sizes.decoder;
    return encoder_decoder_kv_layers(c_.sizes.decoder_layers, layer.heads, layer.head_size());
  }

  std::vector<Value> forward_encoder(nn::Trace& trace, const nn::EncoderInputs& in) const override {
    const Scope root(trace), m = root["model"];
    Value x = embed(m, in.input_ids, in.position_ids);  // [T, dim]
    for (int64_t i = 0; i < c_.sizes.encoder_layers; ++i) {
      x = seq2seq_encoder_layer(m["encoder"]["layers"][i], x, c_.sizes.encoder, nn::owners(in));
    }
    return seq2seq_cross_caches(m["decoder"], x, c_.sizes.decoder, c_.sizes.decoder_layers, in);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = embed(m, step.input_ids, step.position_ids);  // [T, dim]
    for (int64_t i = 0; i < c_.sizes.decoder_layers; ++i) {
      x = seq2seq_decoder_layer(m["decoder"]["layers"][i], x, c_.sizes.decoder, step, i,
                                c_.sizes.decoder_layers);
    }
    return seq2seq_logits(root, m["shared"], x, c_.sizes.vocab);
  }

 private:
  Value embed(const Scope& m, Value ids, Value positions) const {
    const int64_t dim = c_.sizes.encoder.dim;
    const Value words = nn::embedding(m["shared"], ids, c_.sizes.vocab, dim);
    return nn::scale(words, c_.sizes.embed_scale) + nn::sinusoid(m, positions, dim);
  }

  Config c_;
};

}  // namespace

Architecture model_marian() {
  return {.names = {"MarianMTModel"},
          .ignored_tensors = {R"(model\.(encoder|decoder)\.embed_(tokens|positions)\.weight)",
                              R"(lm_head\.weight)"},
          .create = [](const HfConfig& config, const WindowOptions&) -> std::unique_ptr<Model> {
            return std::make_unique<Marian>(read_config(config));
          }};
}

}  // namespace millrace::models
