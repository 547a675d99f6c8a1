// What BART and its relatives (mBART, Marian, Whisper) share: the layers of encoder and decoder,
// under the same names.
#pragma once

#include <string>
#include <vector>

#include "models/model.h"
#include "nn/encoder_layers.h"

namespace millrace::models {

/// A layer of the encoder or of the decoder.
struct Seq2SeqLayer {
  int64_t dim = 0, heads = 0, ffn_dim = 0;
  std::string activation;
  bool pre_norm = false;  // norms in front of what they belong to, instead of behind the sum
  bool k_bias = true;     // Q, V and the output have biases anyway

  int head_size() const { return static_cast<int>(dim / heads); }
};

struct Seq2SeqConfig {
  int64_t vocab = 0, encoder_layers = 0, decoder_layers = 0;
  Seq2SeqLayer encoder, decoder;
  double embed_scale = 1;
};

/// The keys that all of them have.
Seq2SeqConfig read_seq2seq_config(const HfConfig& json);

/// Self-attention caches of the decoder's layers, then their cross caches.
std::vector<KvLayer> encoder_decoder_kv_layers(int64_t layers, int64_t heads, int64_t head_size);

/// x [T, dim] -> [T, dim].
nn::Value seq2seq_encoder_layer(const nn::Scope& s, nn::Value x, const Seq2SeqLayer& layer,
                                const nn::RowOwners& rows);
/// `index` of `layers`.
nn::Value seq2seq_decoder_layer(const nn::Scope& s, nn::Value x, const Seq2SeqLayer& layer,
                                const nn::StepInputs& step, int64_t index, int64_t layers);

/// The cross caches of all decoder layers, which lie under `decoder`, of the encoder's output
/// [T, dim].
std::vector<nn::Value> seq2seq_cross_caches(const nn::Scope& decoder, nn::Value x,
                                            const Seq2SeqLayer& layer, int64_t layers,
                                            const nn::EncoderInputs& in);

/// Refuses models whose encoder, decoder and head have words of their own.
void require_tied_words(const HfConfig& json);

/// BART's head: x times the weight under `head`, plus `final_logits_bias`.
nn::Value seq2seq_logits(const nn::Scope& root, const nn::Scope& head, nn::Value x,
                         int64_t vocabulary);

}  // namespace millrace::models
