#include "base/dummy_weights.h"

#include <bit>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace millrace {
namespace {

std::vector<int64_t> parse_shape(std::string text) {
  std::vector<int64_t> shape;
  if (text == "scalar") return shape;
  for (char& c : text)
    c = c == 'x' ? ' ' : c;
  std::istringstream stream(text);
  for (int64_t size = 0; stream >> size;)
    shape.push_back(size);
  return shape;
}

// The recorded bits come from numpy (tools/dummy_weights.py): an engine and a reference model that
// generate their weights apart must agree to the last bit.
TEST(DummyWeights, MatchNumpyBitForBit) {
  std::ifstream golden(MILLRACE_SOURCE_DIR "/tests/data/dummy_weights/golden.txt");
  int tensors = 0;
  for (std::string line; std::getline(golden, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream fields(line);
    uint64_t seed = 0;
    std::string name, shape_text, colon;
    ASSERT_TRUE(fields >> seed >> name >> shape_text >> colon) << line;
    const std::vector<int64_t> shape = parse_shape(shape_text);
    int64_t count = 1;
    for (const int64_t size : shape)
      count *= size;
    const DummyTensor tensor(seed, name, shape);
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < std::min<int64_t>(4, count); ++i)
      indices.push_back(i);
    for (int64_t i = std::max<int64_t>(0, count - 4); i < count; ++i)
      indices.push_back(i);
    fields >> std::hex;
    for (const int64_t index : indices) {
      uint32_t bits = 0;
      ASSERT_TRUE(fields >> bits) << line;
      EXPECT_EQ(std::bit_cast<uint32_t>(tensor.at(index)), bits) << name << "[" << index << "]";
    }
    ++tensors;
  }
  EXPECT_EQ(tensors, 27);
}

TEST(DummyWeights, AnySplitGivesTheSameValues) {
  const std::vector<int64_t> shape = {33, 7};
  const DummyTensor tensor(4, "model.layers.0.mlp.up_proj.weight", shape);
  std::vector<float> whole(33 * 7), parts(33 * 7);
  tensor.fill(0, 231, whole.data());
  tensor.fill(100, 231, parts.data() + 100);
  tensor.fill(0, 100, parts.data());
  EXPECT_EQ(whole, parts);
  EXPECT_EQ(whole[230], tensor.at(230));
}

// Mean and deviation of a linear layer are those of the uniform distribution that the specification
// states.
TEST(DummyWeights, LinearLayersKeepTheScaleOfTheirInput) {
  const std::vector<int64_t> shape = {512, 256};
  const DummyTensor tensor(0, "model.layers.0.mlp.down_proj.weight", shape);
  double sum = 0, squares = 0, largest = 0;
  constexpr int64_t kCount = 512 * 256;
  for (int64_t i = 0; i < kCount; ++i) {
    const double value = static_cast<double>(tensor.at(i));
    sum += value;
    squares += value * value;
    largest = std::max(largest, std::abs(value));
  }
  EXPECT_NEAR(sum / kCount, 0, 4 / std::sqrt(256.0 * kCount));  // four standard errors
  EXPECT_NEAR(squares / kCount * 256, 1, 0.01);
  EXPECT_LE(largest, std::sqrt(3 / 256.0) * (1 + 1e-6));
}

}  // namespace
}  // namespace millrace
