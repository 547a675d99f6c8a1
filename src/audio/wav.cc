#include "audio/wav.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/error.h"

namespace millrace {
namespace {

constexpr int kPcm = 1, kFloat = 3, kExtensible = 0xfffe;

struct Format {
  int kind = 0, channels = 0, bits = 0;
  uint32_t rate = 0;
};

template <typename T>
T read(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

[[noreturn]] void refuse(const std::string& what, const std::string& where) {
  throw_bad_input(what, where, "convert it to a WAV file of 16-bit samples");
}

Format parse_format(std::string_view chunk, const std::string& where) {
  if (chunk.size() < 16) refuse("the WAV file's format is cut short", where);
  Format format{.kind = read<uint16_t>(chunk, 0),
                .channels = read<uint16_t>(chunk, 2),
                .bits = read<uint16_t>(chunk, 14),
                .rate = read<uint32_t>(chunk, 4)};
  if (format.kind == kExtensible && chunk.size() >= 26) format.kind = read<uint16_t>(chunk, 24);
  const bool known =
      (format.kind == kPcm && format.bits == 16) || (format.kind == kFloat && format.bits == 32);
  if (!known) {
    refuse(str("the WAV file holds samples of format ", format.kind, " with ", format.bits,
               " bits, which is not supported"),
           where);
  }
  if (format.channels < 1 || format.channels > 64 || format.rate < 1 || format.rate > 1'000'000) {
    refuse("the WAV file's channels or sampling rate make no sense", where);
  }
  return format;
}

float sample(std::string_view data, const Format& format, size_t index) {
  if (format.kind == kFloat) return read<float>(data, 4 * index);
  return static_cast<float>(read<int16_t>(data, 2 * index)) / 32768.0F;
}

Sound mix(std::string_view data, const Format& format) {
  const auto channels = static_cast<size_t>(format.channels);
  Sound sound{.rate = static_cast<int>(format.rate), .samples = {}};
  sound.samples.resize(data.size() / (channels * static_cast<size_t>(format.bits / 8)));
  for (size_t i = 0; i < sound.samples.size(); ++i) {
    float sum = 0;
    for (size_t c = 0; c < channels; ++c)
      sum += sample(data, format, i * channels + c);
    sound.samples[i] = sum / static_cast<float>(channels);
  }
  return sound;
}

}  // namespace

Sound parse_wav(std::string_view bytes, const std::string& where) {
  if (bytes.size() < 12 || bytes.substr(0, 4) != "RIFF" || bytes.substr(8, 4) != "WAVE") {
    refuse("this is not a WAV file", where);
  }
  Format format;
  for (size_t offset = 12; offset + 8 <= bytes.size();) {
    const std::string_view name = bytes.substr(offset, 4);
    const size_t size = read<uint32_t>(bytes, offset + 4);
    const std::string_view chunk = bytes.substr(offset + 8, size);  // what there is of it
    if (name == "fmt ") format = parse_format(chunk, where);
    if (name == "data") {
      if (format.kind == 0) refuse("the WAV file has no format in front of its samples", where);
      return mix(chunk, format);
    }
    offset += 8 + size + size % 2;
  }
  refuse("the WAV file has no samples", where);
}

}  // namespace millrace
