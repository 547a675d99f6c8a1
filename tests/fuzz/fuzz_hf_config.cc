// config.json and generation_config.json: everything that the readers take from them.
#include <cmath>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "checkpoint/generation_defaults.h"
#include "checkpoint/hf_config.h"

namespace {

/// Runs one reader; only bad input may come out of it.
template <typename F>
void try_reader(const F& read) {
  try {
    read();
  } catch (const millrace::Error& error) {
    CHECK(error.code() == millrace::ErrorCode::kBadInput);
  }
}

void read_all(const millrace::HfConfig& config) {
  try_reader([&] { CHECK(config.get_int("hidden_size") >= 1); });
  try_reader([&] { config.architecture(); });
  try_reader([&] { config.dtype(); });
  try_reader([&] { millrace::read_generation_defaults(config); });
  try_reader([&] { config.object("text_config").get_strings("layer_types"); });
  for (const char* layer_type : {"", "full_attention"}) {
    try_reader([&] {
      const millrace::RopeConfig rope = millrace::read_rope_config(config, 16, {}, layer_type);
      CHECK(rope.rotary_dim >= 2 && rope.rotary_dim <= 16 && rope.rotary_dim % 2 == 0);
      CHECK(rope.theta > 0 && std::isfinite(rope.theta));
      CHECK(rope.factor > 0 && std::isfinite(rope.factor));
    });
  }
  config.unread_keys();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try_reader([&] {
    read_all(millrace::HfConfig::parse({reinterpret_cast<const char*>(data), size}, "fuzz"));
  });
  return 0;
}
