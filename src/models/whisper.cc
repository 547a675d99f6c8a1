// Whisper: an encoder that reads 30 seconds of speech as frames of a log-mel spectrum through two
// convolutions, and a decoder with learned positions. Norms in front, no bias on K.
#include "models/seq2seq_common.h"
#include "nn/layers.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

constexpr double kNormEps = 1e-5;

struct Config {
  Seq2SeqConfig sizes;
  int64_t mel_bins = 0, source_positions = 0, target_positions = 0;
  bool tied = true;
};

Config read_config(const HfConfig& json) {
  Config c{.sizes = read_seq2seq_config(json),
           .mel_bins = json.get_int("num_mel_bins", 80),
           .source_positions = json.get_int("max_source_positions", 1500),
           .target_positions = json.get_int("max_target_positions", 448),
           .tied = json.get_bool("tie_word_embeddings", true)};
  for (Seq2SeqLayer* layer : {&c.sizes.encoder, &c.sizes.decoder}) {
    layer->pre_norm = true;
    layer->k_bias = false;
  }
  return c;
}

class Whisper : public Model {
 public:
  explicit Whisper(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.sizes.vocab; }
  int64_t max_positions() const override { return c_.target_positions; }
  std::optional<EncoderShape> encoder() const override {
    return EncoderShape{.max_rows = c_.source_positions, .features = c_.mel_bins};
  }
  std::vector<KvLayer> kv_layers() const override {
    const Seq2SeqLayer& layer = c_.sizes.decoder;
    return encoder_decoder_kv_layers(c_.sizes.decoder_layers, layer.heads, layer.head_size());
  }

  std::vector<Value> forward_encoder(nn::Trace& trace, const nn::EncoderInputs& in) const override {
    const Scope root(trace), m = root["model"], stack = m["encoder"];
    const int64_t dim = c_.sizes.encoder.dim;
    const nn::RowOwners rows = nn::owners(in);
    Value x = nn::activation(nn::conv_frames(stack["conv1"], in.features, dim, rows), "gelu");
    x = nn::conv_frames(stack["conv2"], x, dim, rows, in.position_ids);  // [T, dim]
    x = nn::activation(x, "gelu") +
        nn::embedding(stack["embed_positions"], in.position_ids, c_.source_positions, dim);
    for (int64_t i = 0; i < c_.sizes.encoder_layers; ++i)
      x = seq2seq_encoder_layer(stack["layers"][i], x, c_.sizes.encoder, rows);
    x = nn::layer_norm(stack["layer_norm"], x, kNormEps);
    return seq2seq_cross_caches(m["decoder"], x, c_.sizes.decoder, c_.sizes.decoder_layers, in);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), stack = root["model"]["decoder"];
    const int64_t dim = c_.sizes.decoder.dim;
    Value x = nn::embedding(stack["embed_tokens"], step.input_ids, c_.sizes.vocab, dim) +
              nn::embedding(stack["embed_positions"], step.position_ids, c_.target_positions, dim);
    for (int64_t i = 0; i < c_.sizes.decoder_layers; ++i) {
      x = seq2seq_decoder_layer(stack["layers"][i], x, c_.sizes.decoder, step, i,
                                c_.sizes.decoder_layers);
    }
    x = nn::layer_norm(stack["layer_norm"], x, kNormEps);
    return nn::logits(c_.tied ? stack["embed_tokens"] : root["proj_out"], x, c_.sizes.vocab);
  }

 private:
  Config c_;
};

}  // namespace

Architecture model_whisper() {
  return {.names = {"WhisperForConditionalGeneration"},
          .ignored_tensors = {R"(proj_out\.weight)"},
          .create = [](const HfConfig& config, const WindowOptions&) -> std::unique_ptr<Model> {
            return std::make_unique<Whisper>(read_config(config));
          }};
}

}  // namespace millrace::models
