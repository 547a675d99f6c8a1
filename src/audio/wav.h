// WAV files: uncompressed sound.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace millrace {

struct Sound {
  int rate = 0;                // samples a second
  std::vector<float> samples;  // one channel (the mean of several), in [-1, 1]
};

/// Reads a RIFF/WAVE file of 16-bit integers or 32-bit floats. `where` names it in messages. Throws
/// Error on any other file.
Sound parse_wav(std::string_view bytes, const std::string& where);

}  // namespace millrace
