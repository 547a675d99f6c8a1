#include "models/decoder_common.h"

#include <algorithm>
#include <cmath>

#include "base/str.h"
#include "nn/layers.h"

namespace millrace::models {

std::string read_activation(const HfConfig& json, std::string_view key, std::string_view fallback) {
  std::string name = json.get_string(key, fallback);
  if (!nn::knows_activation(name)) {
    json.fail(key, str("is '", name, "', which is not supported"),
              str("supported are ", join(nn::activation_names(), ", ")));
  }
  return name;
}

nn::QkvSizes check_heads(const HfConfig& json, std::string_view heads_key, int64_t heads,
                         std::string_view kv_heads_key, int64_t kv_heads, int64_t head_size) {
  if (heads % kv_heads != 0) {
    json.fail(heads_key, str("is ", heads, ", not a multiple of ", kv_heads_key, " ", kv_heads));
  }
  return {heads, kv_heads, head_size};
}

int64_t split_heads(const HfConfig& json, std::string_view dim_key, int64_t dim,
                    std::string_view heads_key, int64_t heads) {
  if (dim % heads != 0) {
    json.fail(dim_key, str("is ", dim, ", not a multiple of ", heads_key, " ", heads));
  }
  return dim / heads;
}

nn::QkvSizes read_heads(const HfConfig& json, int64_t default_size) {
  const int64_t dim = json.get_int("hidden_size");
  const int64_t heads = json.get_int("num_attention_heads");
  const int64_t quotient = std::max<int64_t>(1, dim / heads);
  return check_heads(json, "num_attention_heads", heads, "num_key_value_heads",
                     json.get_int("num_key_value_heads", heads),
                     json.get_int("head_dim", default_size > 0 ? default_size : quotient));
}

std::vector<std::string> read_layer_types(const HfConfig& json, int64_t layers,
                                          FunctionRef<std::string(int64_t)> usual) {
  std::vector<std::string> types = json.get_strings("layer_types");
  if (json.has("layer_types") && types.size() != static_cast<size_t>(layers)) {
    json.fail("layer_types", str("has ", types.size(), " entries for ", layers, " layers"));
  }
  for (int64_t i = static_cast<int64_t>(types.size()); i < layers; ++i)
    types.push_back(usual(i));
  return types;
}

std::vector<int> windows_by_layer_type(const HfConfig& json, const std::vector<std::string>& types,
                                       const WindowOptions& asked) {
  std::vector<int> windows;
  for (const std::string& type : types) {
    if (type == "full_attention") {
      windows.push_back(asked.window);
    } else if (type == "sliding_attention") {
      windows.push_back(static_cast<int>(json.get_int("sliding_window")));
    } else {
      json.fail("layer_types", str("has '", type, "', which is not supported"),
                "supported are full_attention and sliding_attention");
    }
  }
  return windows;
}

std::vector<KvLayer> kv_layers_of(const nn::QkvSizes& sizes, const std::vector<int>& windows,
                                  int sink_tokens) {
  std::vector<KvLayer> layers;
  for (const int window : windows) {
    const auto size = static_cast<int>(sizes.head_size);
    layers.push_back({.kv_heads = static_cast<int>(sizes.kv_heads),
                      .k_size = size,
                      .v_size = size,
                      .window = window,
                      .sink_tokens = window > 0 ? sink_tokens : 0});
  }
  return layers;
}

ops::Attention attention_of(const nn::QkvSizes& sizes, int window, int sink_tokens) {
  const auto size = static_cast<int>(sizes.head_size);
  return {.heads = static_cast<int>(sizes.heads),
          .kv_heads = static_cast<int>(sizes.kv_heads),
          .head_size = size,
          .v_head_size = size,
          .scale = 1 / std::sqrt(static_cast<double>(size)),
          .window = window,
          .sink_tokens = window > 0 ? sink_tokens : 0};
}

}  // namespace millrace::models
