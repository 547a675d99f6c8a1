#include "audio/log_mel.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace millrace {
namespace {

constexpr int kWindow = 400;  // samples
constexpr int kHalf = kWindow / 2;
constexpr int kFrequencies = kHalf + 1;
constexpr double kHighest = 8000;  // Hz
constexpr double kLeastEnergy = 1e-10;
constexpr double kLogRange = 8;

// Linear to 1000 Hz (15 mel), then 27 steps for each factor of 6.4.
constexpr double kLinearHz = 1000, kLinearMels = 15;
const double kLogStep = 27 / std::log(6.4);

double to_mels(double hertz) {
  if (hertz < kLinearHz) return hertz * kLinearMels / kLinearHz;
  return kLinearMels + std::log(hertz / kLinearHz) * kLogStep;
}

double to_hertz(double mels) {
  if (mels < kLinearMels) return mels * kLinearHz / kLinearMels;
  return kLinearHz * std::exp((mels - kLinearMels) / kLogStep);
}

/// Weights [bins, kFrequencies] of triangles between neighbouring centers, each of area 1 Hz.
std::vector<double> mel_filters(int bins) {
  std::vector<double> centers;
  for (int i = 0; i < bins + 2; ++i)
    centers.push_back(to_hertz(to_mels(kHighest) * i / (bins + 1)));
  std::vector<double> filters;
  for (size_t b = 0; b < static_cast<size_t>(bins); ++b) {
    const double low = centers[b], middle = centers[b + 1], high = centers[b + 2];
    for (int k = 0; k < kFrequencies; ++k) {
      const double hertz = kHighest * k / kHalf;
      const double triangle =
          std::min((hertz - low) / (middle - low), (high - hertz) / (high - middle));
      filters.push_back(std::max(0.0, triangle) * 2 / (high - low));
    }
  }
  return filters;
}

/// Energies of a real frame's frequencies, as a plain sum: samples n and kWindow - n share cosines
/// and, with opposite signs, sines.
class Spectrum {
 public:
  Spectrum() {
    for (int n = 0; n < kWindow; ++n) {
      const double angle = 2 * std::numbers::pi * n / kWindow;
      cosines_[static_cast<size_t>(n)] = std::cos(angle);
      sines_[static_cast<size_t>(n)] = std::sin(angle);
    }
  }

  /// The frame in a periodic Hann window.
  void take(const std::array<double, kWindow>& frame) {
    const auto windowed = [&](int n) {
      return frame[static_cast<size_t>(n)] * (0.5 - 0.5 * cosines_[static_cast<size_t>(n)]);
    };
    first_ = windowed(0);
    for (int n = 1; n < kHalf; ++n) {
      sums_[static_cast<size_t>(n)] = windowed(n) + windowed(kWindow - n);
      differences_[static_cast<size_t>(n)] = windowed(n) - windowed(kWindow - n);
    }
    middle_ = windowed(kHalf);
  }

  double energy(int k) const {
    double real = first_ + (k % 2 == 0 ? middle_ : -middle_), imaginary = 0;
    int angle = 0;
    for (size_t n = 1; n < kHalf; ++n) {
      angle += k;
      if (angle >= kWindow) angle -= kWindow;
      real += sums_[n] * cosines_[static_cast<size_t>(angle)];
      imaginary += differences_[n] * sines_[static_cast<size_t>(angle)];
    }
    return real * real + imaginary * imaginary;
  }

 private:
  std::array<double, kWindow> cosines_{}, sines_{};
  std::array<double, kHalf> sums_{}, differences_{};
  double first_ = 0, middle_ = 0;
};

/// The frame around sample `center`: behind the sound comes silence, up to `total` samples, and
/// both ends are mirrors.
std::array<double, kWindow> frame_at(std::span<const float> samples, int64_t center,
                                     int64_t total) {
  std::array<double, kWindow> frame{};
  for (int n = 0; n < kWindow; ++n) {
    const int64_t from_front = std::abs(center - kHalf + n);
    const auto i = static_cast<size_t>(std::min(from_front, 2 * (total - 1) - from_front));
    frame[static_cast<size_t>(n)] = i < samples.size() ? double{samples[i]} : 0.0;
  }
  return frame;
}

}  // namespace

std::vector<float> log_mel(std::span<const float> samples, int64_t frames, int bins) {
  const std::vector<double> filters = mel_filters(bins);
  Spectrum spectrum;
  std::vector<double> energies(kFrequencies);
  std::vector<double> logs(static_cast<size_t>(frames * bins), std::log10(kLeastEnergy));
  for (int64_t t = 0; t < frames; ++t) {
    if (t * kSpeechHop - kHalf >= static_cast<int64_t>(samples.size())) break;  // silence
    spectrum.take(frame_at(samples, t * kSpeechHop, frames * kSpeechHop));
    for (int k = 0; k < kFrequencies; ++k)
      energies[static_cast<size_t>(k)] = spectrum.energy(k);
    for (int b = 0; b < bins; ++b) {
      const auto filter = filters.begin() + int64_t{b} * kFrequencies;
      double sum = 0;
      for (int k = 0; k < kFrequencies; ++k)
        sum += filter[k] * energies[static_cast<size_t>(k)];
      logs[static_cast<size_t>(t * bins + b)] = std::log10(std::max(sum, kLeastEnergy));
    }
  }
  const double least = *std::max_element(logs.begin(), logs.end()) - kLogRange;
  std::vector<float> out;
  for (const double x : logs)
    out.push_back(static_cast<float>((std::max(x, least) + 4) / 4));
  return out;
}

}  // namespace millrace
