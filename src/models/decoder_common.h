// What decoder families read from config.json, and say of their layers, in the same way.
#pragma once

#include <string>
#include <vector>

#include "base/function_ref.h"
#include "models/model.h"
#include "nn/attention_layer.h"
#include "nn/qkv.h"

namespace millrace::models {

/// The name of an activation function that nn::activation() knows; any other is refused.
std::string read_activation(const HfConfig& json, std::string_view key, std::string_view fallback);

/// Sizes of attention heads: `kv_heads` must divide `heads`. Keys are for messages.
nn::QkvSizes check_heads(const HfConfig& json, std::string_view heads_key, int64_t heads,
                         std::string_view kv_heads_key, int64_t kv_heads, int64_t head_size);
/// `dim / heads`, which must come out even.
int64_t split_heads(const HfConfig& json, std::string_view dim_key, int64_t dim,
                    std::string_view heads_key, int64_t heads);

/// The usual spelling: hidden_size, num_attention_heads, num_key_value_heads, head_dim. Without
/// head_dim a head has `default_size`, or hidden_size / num_attention_heads when that is 0.
nn::QkvSizes read_heads(const HfConfig& json, int64_t default_size = 0);

/// `layer_types`, one for each layer; where the file has none, `usual(i)` for layer i.
std::vector<std::string> read_layer_types(const HfConfig& json, int64_t layers,
                                          FunctionRef<std::string(int64_t)> usual);

/// The window of each layer: that of `sliding_window` where `layer_types` says sliding_attention,
/// what the user asked for elsewhere.
std::vector<int> windows_by_layer_type(const HfConfig& json, const std::vector<std::string>& types,
                                       const WindowOptions& asked);

/// The KV cache of each layer, all with the same heads.
std::vector<KvLayer> kv_layers_of(const nn::QkvSizes& sizes, const std::vector<int>& windows,
                                  int sink_tokens);

/// The attributes of attention that follow from the sizes: scale 1/sqrt(D); sinks only in front of
/// a window.
ops::Attention attention_of(const nn::QkvSizes& sizes, int window, int sink_tokens);

}  // namespace millrace::models
