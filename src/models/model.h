// What a model file provides: its forward() and prepare_inputs(), traced together into one graph.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/hf_config.h"
#include "nn/step_inputs.h"
#include "nn/trace.h"

namespace millrace::models {

/// The KV cache of one layer. Layers with equal rows share a group of blocks.
struct KvLayer {
  int kv_heads = 0;
  int k_size = 0, v_size = 0;  // elements of one head's K and V vector
  int window = 0;              // 0: every position stays visible
  int sink_tokens = 0;         // positions that stay visible in front of the window
  bool cross = false;          // of cross attention: behind all others in a list
  bool operator==(const KvLayer&) const = default;
};

/// Bounds of the symbolic dimensions.
struct InputLimits {
  int64_t max_num_tokens = 0;   // T, rows of a step
  int64_t max_sequences = 0;    // S, requests times beams
  int64_t max_seq_len = 0;      // tokens of a sequence
  int64_t max_encoder_len = 0;  // rows of an encoder's input
};

/// Windows that the user asks for on a model that brings none (`--attention-window`,
/// `--sink-tokens`).
struct WindowOptions {
  int window = 0;
  int sink_tokens = 0;
};

/// What the encoder of an encoder-decoder model reads.
struct EncoderShape {
  int64_t max_rows = 0;  // the longest input it was made for, in rows that it makes
  int64_t features = 0;  // numbers of a frame, two frames a row; 0: token ids, one a row
};

class Model {
 public:
  virtual ~Model() = default;
  virtual int64_t vocab_size() const = 0;
  /// The longest sequence it was made for.
  virtual int64_t max_positions() const = 0;
  virtual std::vector<KvLayer> kv_layers() const = 0;
  /// Encoder-only: forward() is all there is, every row sees every other of its sequence.
  virtual bool is_encoder() const { return false; }
  /// False: forward() ends in the last hidden states, there is nothing to run but `embed`.
  virtual bool has_head() const { return true; }
  /// Encoder-decoder: has forward_encoder() and layers with `cross`.
  virtual std::optional<EncoderShape> encoder() const { return std::nullopt; }

  /// Declares what a step brings. Decoders have nothing to add to prepare_basic_inputs.
  virtual nn::StepInputs prepare_inputs(nn::Trace& trace, const InputLimits& limits) const;
  /// Logits f32 [T, vocabulary] of every row. Those of the rows that step.last_token_ids names are
  /// what is computed: pass gather_last_tokens sees to it.
  virtual nn::Value forward(nn::Trace& trace, const nn::StepInputs& step) const = 0;
  /// The encoder's own graph: ends in a nn::cross_append for each decoder layer, whose caches it
  /// returns.
  virtual std::vector<nn::Value> forward_encoder(nn::Trace& trace,
                                                 const nn::EncoderInputs& inputs) const;
};

/// One family: the class names of config.json's `architectures` and how to make the model.
struct Architecture {
  std::vector<std::string_view> names;
  /// Regular expressions (ECMAScript) of tensors that its checkpoints may hold and it does not
  /// need.
  std::vector<std::string_view> ignored_tensors;
  std::unique_ptr<Model> (*create)(const HfConfig& config, const WindowOptions& window);
};

/// The architecture for this config. Throws Error naming the nearest supported one when there is
/// none.
const Architecture& find_architecture(const HfConfig& config);
std::vector<std::string_view> architecture_names();

}  // namespace millrace::models
