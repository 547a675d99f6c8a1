#include "audio/log_mel.h"

#include <cmath>

#include <gtest/gtest.h>

namespace millrace {
namespace {

struct Point {
  int frame, bin;
  double value;
};
struct Case {
  int bins, frames, samples;
  std::vector<Point> points;
};

std::vector<float> sound(int samples) {
  std::vector<float> x;
  for (int n = 0; n < samples; ++n) {
    const double i = n;
    x.push_back(static_cast<float>(0.3 * std::sin(i * 0.05) + 0.2 * std::sin(i * i * 1e-5) +
                                   0.1 * std::cos(i * 0.9)));
  }
  return x;
}

// transformers 5.23, WhisperFeatureExtractor(feature_size=bins, chunk_length=frames / 100), of the
// sound above: at its beginning and end, and in the silence behind it.
TEST(LogMel, IsThatOfTransformers) {
  const std::vector<Case> cases = {
      {80,
       100,
       16000,
       {{0, 0, 1.194558},
        {0, 1, 1.266561},
        {0, 40, 0.025192},
        {0, 79, -0.462387},
        {1, 0, 1.016857},
        {1, 1, 1.101744},
        {1, 40, -0.47912},
        {1, 79, -0.576455},
        {33, 0, 0.476824},
        {33, 1, 1.110128},
        {33, 40, -0.576455},
        {33, 79, -0.576455},
        {99, 0, 0.48741},
        {99, 1, 1.107136},
        {99, 40, 0.045267},
        {99, 79, -0.576455}}},
      {16,
       200,
       9000,
       {{0, 0, 1.146076},    {0, 1, 0.848439},    {0, 8, 0.008951},    {0, 15, -0.446617},
        {1, 0, 1.184681},    {1, 1, 0.370461},    {1, 8, -0.18845},    {1, 15, -0.708205},
        {66, 0, -0.708205},  {66, 1, -0.708205},  {66, 8, -0.708205},  {66, 15, -0.708205},
        {55, 0, 1.184242},   {55, 1, 1.051338},   {55, 8, -0.194855},  {55, 15, -0.708205},
        {56, 0, 1.142027},   {56, 1, 1.026767},   {56, 8, 0.527468},   {56, 15, 0.10551},
        {58, 0, -0.708205},  {58, 1, -0.708205},  {58, 8, -0.708205},  {58, 15, -0.708205},
        {199, 0, -0.708205}, {199, 1, -0.708205}, {199, 8, -0.708205}, {199, 15, -0.708205}}},
      {128,
       100,
       4000,
       {{0, 0, 1.118798},   {0, 1, 1.216363},   {0, 64, 0.021562},   {0, 127, -0.46286},
        {1, 0, 0.941097},   {1, 1, 1.038662},   {1, 64, -0.48932},   {1, 127, -0.517454},
        {33, 0, -0.517454}, {33, 1, -0.517454}, {33, 64, -0.517454}, {33, 127, -0.517454},
        {24, 0, 0.423263},  {24, 1, 0.520828},  {24, 64, -0.065291}, {24, 127, -0.500083},
        {25, 0, 0.744395},  {25, 1, 0.841959},  {25, 64, 0.448808},  {25, 127, 0.005973},
        {27, 0, -0.517454}, {27, 1, -0.517454}, {27, 64, -0.517454}, {27, 127, -0.517454},
        {99, 0, -0.517454}, {99, 1, -0.517454}, {99, 64, -0.517454}, {99, 127, -0.517454}}},
  };
  for (const Case& c : cases) {
    const std::vector<float> got = log_mel(sound(c.samples), c.frames, c.bins);
    ASSERT_EQ(got.size(), static_cast<size_t>(c.frames * c.bins));
    for (const Point& p : c.points) {
      EXPECT_NEAR(got[static_cast<size_t>(p.frame * c.bins + p.bin)], p.value, 1e-4)
          << c.bins << " bins, frame " << p.frame << ", bin " << p.bin;
    }
  }
}

TEST(LogMel, OfSilenceIsItsFloor) {
  for (const float x : log_mel({}, 10, 80))
    EXPECT_FLOAT_EQ(x, -1.5F);  // (log10(1e-10) + 4) / 4
}

}  // namespace
}  // namespace millrace
