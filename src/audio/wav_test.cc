#include "audio/wav.h"

#include <cstdint>
#include <cstring>

#include <gtest/gtest.h>

#include "base/error.h"

namespace millrace {
namespace {

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string chunk(const std::string& name, const std::string& contents) {
  std::string all = name + bytes_of<uint32_t>({static_cast<uint32_t>(contents.size())}) + contents;
  if (contents.size() % 2 == 1) all += '\0';
  return all;
}

std::string format(uint16_t kind, uint16_t channels, uint32_t rate, uint16_t bits) {
  const auto frame = static_cast<uint16_t>(channels * bits / 8);
  return bytes_of<uint16_t>({kind, channels}) + bytes_of<uint32_t>({rate, rate * frame}) +
         bytes_of<uint16_t>({frame, bits});
}

std::string wav(const std::string& chunks) {
  return chunk("RIFF", "WAVE" + chunks);
}

std::string refusal(const std::string& bytes) {
  try {
    parse_wav(bytes, "a.wav");
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
}

TEST(Wav, ReadsSixteenBitSamples) {
  const Sound sound = parse_wav(wav(chunk("fmt ", format(1, 1, 16000, 16)) +
                                    chunk("data", bytes_of<int16_t>({0, 16384, -32768, 32767}))),
                                "a.wav");
  EXPECT_EQ(sound.rate, 16000);
  EXPECT_EQ(sound.samples, (std::vector<float>{0, 0.5, -1, 32767.0F / 32768}));
}

TEST(Wav, MixesChannelsAndSkipsOtherChunks) {
  const Sound sound =
      parse_wav(wav(chunk("LIST", "odd") + chunk("fmt ", format(3, 2, 8000, 32)) +
                    chunk("fact", "abcd") + chunk("data", bytes_of<float>({0.5, 0.25, -1, 1}))),
                "a.wav");
  EXPECT_EQ(sound.rate, 8000);
  EXPECT_EQ(sound.samples, (std::vector<float>{0.375, 0}));
}

TEST(Wav, ReadsTheExtensibleFormat) {
  const std::string extended =
      format(0xfffe, 1, 16000, 16) + bytes_of<uint16_t>({22, 16, 0, 0, 1}) + std::string(14, '\0');
  const Sound sound =
      parse_wav(wav(chunk("fmt ", extended) + chunk("data", bytes_of<int16_t>({-16384}))), "a.wav");
  EXPECT_EQ(sound.samples, (std::vector<float>{-0.5}));
}

TEST(Wav, RefusesWhatItIsNot) {
  const std::string samples = chunk("data", bytes_of<int16_t>({1, 2}));
  EXPECT_NE(refusal("").find("not a WAV file"), std::string::npos);
  EXPECT_NE(refusal("ID3 and more than twelve bytes").find("not a WAV file"), std::string::npos);
  EXPECT_NE(refusal(wav(samples)).find("no format"), std::string::npos);
  EXPECT_NE(refusal(wav(chunk("fmt ", format(1, 1, 16000, 16)))).find("no samples"),
            std::string::npos);
  EXPECT_NE(refusal(wav(chunk("fmt ", format(1, 1, 16000, 8)) + samples)).find("8 bits"),
            std::string::npos);
  EXPECT_NE(refusal(wav(chunk("fmt ", format(85, 1, 16000, 16)) + samples)).find("format 85"),
            std::string::npos);
  EXPECT_NE(refusal(wav(chunk("fmt ", format(1, 0, 16000, 16)) + samples)), "");
  EXPECT_NE(refusal(wav(chunk("fmt ", "short") + samples)).find("cut short"), std::string::npos);
}

TEST(Wav, SurvivesEveryCut) {
  const std::string whole =
      wav(chunk("fmt ", format(1, 1, 16000, 16)) + chunk("data", bytes_of<int16_t>({1, 2, 3, 4})));
  for (size_t size = 0; size < whole.size(); ++size) {
    try {
      EXPECT_LT(parse_wav(whole.substr(0, size), "a.wav").samples.size(), 4u) << size;
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace millrace
