// Log-mel spectra of speech as Whisper reads them (Radford et al., "Robust speech recognition via
// large-scale weak supervision", 2022, section 2.2): 16 kHz, windows of 25 ms every 10 ms.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace millrace {

inline constexpr int kSpeechRate = 16000;  // samples a second
inline constexpr int kSpeechHop = 160;     // samples from one frame to the next

/// log10 of the energy in `bins` triangular bands (Slaney's mel scale, 0 to 8 kHz, of equal area),
/// at most 8 below the loudest of all frames, then (x + 4) / 4. The samples are followed by silence
/// up to `frames` frames: [frames, bins]. REQUIRES: samples.size() <= frames * kSpeechHop.
std::vector<float> log_mel(std::span<const float> samples, int64_t frames, int bins);

}  // namespace millrace
