#include "runtime/weights.h"

#include <bit>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/dummy_weights.h"
#include "base/error.h"
#include "engine/test_engine.h"

namespace millrace::runtime {
namespace {

namespace fs = std::filesystem;
using engine::Weight;
using engine::WeightSlice;
using ir::DType;

// Exact in bf16 and f32.
float value(int64_t index) {
  return static_cast<float>(index % 251 - 125) / 4;
}

uint16_t bf16(float exact) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(exact) >> 16);
}

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::vector<uint16_t> bf16_values(int64_t count, int64_t first = 0) {
  std::vector<uint16_t> values;
  for (int64_t i = first; i < first + count; ++i)
    values.push_back(bf16(value(i)));
  return values;
}

// A safetensors file in the making; its tensors become slices of weights.
class Source {
 public:
  Source()
      : path_((fs::path(::testing::TempDir()) / str("weights_", getpid(), "_", next_++)).string()) {
  }
  ~Source() { fs::remove(path_); }

  // Returns the tensor as one slice. The offset counts from the data until write().
  WeightSlice add(const char* dtype, DType type, int64_t rows, const std::string& bytes) {
    const auto begin = static_cast<int64_t>(data_.size());
    data_ += bytes;
    const auto size = static_cast<int64_t>(bytes.size());
    const std::string name = str("t", ++tensors_);
    header_ += str(header_.empty() ? "" : ", ", "\"", name, "\": {\"dtype\": \"", dtype,
                   "\", \"shape\": [", rows, ", ", size / rows / ir::dtype_size(type),
                   "], \"data_offsets\": [", begin, ", ", begin + size, "]}");
    return {0, begin, rows, size / rows, type, name};
  }
  WeightSlice add_bf16(int64_t rows, const std::vector<uint16_t>& values) {
    return add("BF16", DType::kBF16, rows, bytes_of(values));
  }

  // An engine with these weights. `odd`: data begin at an odd address.
  engine::Engine write(std::vector<Weight> weights, bool odd = false) {
    std::string header = "{" + header_ + "}";
    while ((header.size() + 8) % 64 != (odd ? 1 : 0))
      header += ' ';
    std::string length(8, '\0');
    const uint64_t size = header.size();
    std::memcpy(length.data(), &size, 8);
    std::ofstream(path_, std::ios::binary) << length << header << data_;
    for (Weight& weight : weights) {
      for (WeightSlice& slice : weight.slices)
        slice.offset += static_cast<int64_t>(8 + header.size());
    }
    const MappedFile file = MappedFile::open(path_);
    engine::Engine engine;
    engine.manifest.model = "test";
    engine.weights = std::move(weights);
    engine.files = {{path_, file.size(), file.mtime_ns(), "unused"}};
    return engine;
  }
  const std::string& path() const { return path_; }

 private:
  static inline int next_ = 0;
  std::string path_, header_, data_;
  int tensors_ = 0;
};

class WeightsTest : public ::testing::Test {
 protected:
  std::unique_ptr<Weights> load(const engine::Engine& engine) {
    file_ = engine::EngineFile::from_memory(engine);
    auto weights = std::make_unique<Weights>(file_, *device_);
    weights->load();
    return weights;
  }
  template <typename T>
  std::vector<T> read(const Weights& weights, size_t index) const {
    const auto bytes = static_cast<size_t>(weight_bytes(file_->engine().weights[index]));
    std::vector<T> values(bytes / sizeof(T));
    std::memcpy(values.data(), weights.data(index), bytes);
    return values;
  }
  // Exits of loading: the message, or "" when it went well.
  std::string refusal(const engine::Engine& engine, ErrorCode code) {
    try {
      load(engine);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      return error.what();
    }
    return "";
  }

  Source source_;
  const std::unique_ptr<device::Device> device_ = device::make_cpu_device(2);
  std::shared_ptr<const engine::EngineFile> file_;
};

TEST_F(WeightsTest, WhatTheFileHasAsWantedIsNotCopied) {
  const auto first = bf16_values(12), second = bf16_values(6, 12);
  const WeightSlice a = source_.add_bf16(3, first), b = source_.add_bf16(6, second);
  const auto weights = load(source_.write(
      {{"matrix", {3, 4}, DType::kBF16, false, {a}}, {"vector", {6}, DType::kBF16, false, {b}}}));
  EXPECT_EQ(read<uint16_t>(*weights, 0), first);
  EXPECT_EQ(read<uint16_t>(*weights, 1), second);
  EXPECT_EQ(weights->mapped_bytes(), 36);
  EXPECT_EQ(weights->copied_bytes(), 0);
  // In one mapping, at the distance that they have in the file.
  EXPECT_EQ(static_cast<const std::byte*>(weights->data(1)) -
                static_cast<const std::byte*>(weights->data(0)),
            24);
}

TEST_F(WeightsTest, WhatIsNotAlignedIsCopied) {
  const auto values = bf16_values(12);
  const WeightSlice a = source_.add_bf16(3, values);
  const WeightSlice bytes = source_.add("I8", DType::kI8, 2, "abcd");
  const auto weights = load(source_.write({{"matrix", {3, 4}, DType::kBF16, false, {a}},
                                           {"bytes", {2, 2}, DType::kI8, false, {bytes}},
                                           {"wider", {3, 4}, DType::kF32, false, {a}}},
                                          true));
  EXPECT_EQ(read<uint16_t>(*weights, 0), values);
  EXPECT_EQ(read<char>(*weights, 1), (std::vector<char>{'a', 'b', 'c', 'd'}));
  const auto wider = read<float>(*weights, 2);
  for (size_t i = 0; i < wider.size(); ++i)
    EXPECT_EQ(wider[i], value(static_cast<int64_t>(i)));
  EXPECT_EQ(weights->mapped_bytes(), 4);
  EXPECT_EQ(weights->copied_bytes(), 64 + 64);  // 24 and 48, rounded up to a cache line
}

// Q, K and V as one product, of parts with different types and numbers of rows, in the order of the
// slices and not of the file.
TEST_F(WeightsTest, PartsAreStacked) {
  const auto v = bf16_values(8, 100), q = bf16_values(16), k = bf16_values(8, 50);
  std::vector<float> bias;
  for (int i = 0; i < 4; ++i)
    bias.push_back(value(200 + i));
  const WeightSlice v_slice = source_.add_bf16(2, v), q_slice = source_.add_bf16(4, q);
  const WeightSlice k_slice = source_.add_bf16(2, k);
  const WeightSlice f32 = source_.add("F32", DType::kF32, 1, bytes_of(bias));
  const auto weights =
      load(source_.write({{"qkv", {8, 4}, DType::kBF16, false, {q_slice, k_slice, v_slice}},
                          {"mixed", {3, 4}, DType::kF32, false, {f32, k_slice}}}));
  std::vector<uint16_t> stacked = q;
  stacked.insert(stacked.end(), k.begin(), k.end());
  stacked.insert(stacked.end(), v.begin(), v.end());
  EXPECT_EQ(read<uint16_t>(*weights, 0), stacked);
  std::vector<float> mixed = bias;
  for (int i = 50; i < 58; ++i)
    mixed.push_back(value(i));
  EXPECT_EQ(read<float>(*weights, 1), mixed);
  EXPECT_EQ(weights->mapped_bytes(), 0);
  EXPECT_EQ(weights->copied_bytes(), 64 + 64);
}

// Bit patterns by hand.
TEST_F(WeightsTest, TypesAreConverted) {
  const std::vector<uint16_t> half = {0x3c00, 0xc000, 0x3555, 0x7bff, 0x0001, 0x8000};
  const std::vector<float> halves = {1, -2, 0x1.554p-2F, 65504, 0x1p-24F, -0.0F};
  // Ties go to the even neighbour.
  const std::vector<float> single = {0x1.01p0F, 0x1.03p0F, 0x1.010002p0F, -0x1.01p0F};
  const std::vector<uint16_t> rounded = {0x3f80, 0x3f82, 0x3f81, 0xbf80};
  const WeightSlice h = source_.add("F16", DType::kF16, 2, bytes_of(half));
  const WeightSlice s = source_.add("F32", DType::kF32, 2, bytes_of(single));
  const WeightSlice b = source_.add_bf16(1, {0x3f80, 0xc2c8});
  const auto weights = load(source_.write({{"a", {2, 3}, DType::kF32, false, {h}},
                                           {"b", {2, 2}, DType::kBF16, false, {s}},
                                           {"c", {1, 2}, DType::kF16, false, {b}}}));
  EXPECT_EQ(bytes_of(read<float>(*weights, 0)), bytes_of(halves));
  EXPECT_EQ(read<uint16_t>(*weights, 1), rounded);
  EXPECT_EQ(read<uint16_t>(*weights, 2), (std::vector<uint16_t>{0x3c00, 0xd640}));  // 1, -100
}

// [K, N] as stored becomes [N, K].
TEST_F(WeightsTest, TransposedWeightsAreTurned) {
  const auto stored = bf16_values(15);
  const WeightSlice slice = source_.add_bf16(3, stored);
  const auto weights = load(source_.write({{"same type", {5, 3}, DType::kBF16, true, {slice}},
                                           {"wider", {5, 3}, DType::kF32, true, {slice}}}));
  const auto narrow = read<uint16_t>(*weights, 0);
  const auto wide = read<float>(*weights, 1);
  for (size_t n = 0; n < 5; ++n) {
    for (size_t k = 0; k < 3; ++k) {
      EXPECT_EQ(narrow[n * 3 + k], stored[k * 5 + n]);
      EXPECT_EQ(wide[n * 3 + k], value(static_cast<int64_t>(k * 5 + n)));
    }
  }
}

// [E, K, N] as stored becomes [E, N, K]; more columns than are turned at a time.
TEST_F(WeightsTest, StacksOfTransposedWeightsAreTurned) {
  constexpr size_t kExperts = 2, kDepth = 3, kCols = 70;
  const auto stored = bf16_values(kExperts * kDepth * kCols);
  const WeightSlice slice = source_.add_bf16(kExperts, stored);
  const std::vector<int64_t> shape = {kExperts, kCols, kDepth};
  const auto weights = load(source_.write({{"same type", shape, DType::kBF16, true, {slice}},
                                           {"wider", shape, DType::kF32, true, {slice}}}));
  const auto narrow = read<uint16_t>(*weights, 0);
  const auto wide = read<float>(*weights, 1);
  for (size_t e = 0; e < kExperts; ++e) {
    for (size_t n = 0; n < kCols; ++n) {
      for (size_t k = 0; k < kDepth; ++k) {
        const size_t from = (e * kDepth + k) * kCols + n, to = (e * kCols + n) * kDepth + k;
        EXPECT_EQ(narrow[to], stored[from]);
        EXPECT_EQ(wide[to], value(static_cast<int64_t>(from)));
      }
    }
  }
}

// More than one thread's piece; rows of several kinds next to each other.
// 3-4-5 triangles; a row of zeros stays one.
TEST_F(WeightsTest, RowsAreDividedByTheirLength) {
  const std::vector<float> stored = {3, 4, -6, 8, 0, 0};
  const WeightSlice f32 = source_.add("F32", DType::kF32, 3, bytes_of(stored));
  Weight weight{"head", {3, 2}, DType::kF32, false, {f32}};
  weight.unit_rows = true;
  Weight narrow = weight;
  narrow.name = "narrow";
  narrow.dtype = DType::kBF16;
  const auto weights = load(source_.write({weight, narrow}));
  EXPECT_EQ(read<float>(*weights, 0), (std::vector<float>{0.6F, 0.8F, -0.6F, 0.8F, 0, 0}));
  // bf16 has 8 digits: 0.6 is 0.6015625 and 0.8 is 0.80078125.
  EXPECT_EQ(read<uint16_t>(*weights, 1),
            (std::vector<uint16_t>{bf16(0.6015625F), bf16(0.80078125F), bf16(-0.6015625F),
                                   bf16(0.80078125F), 0, 0}));
}

TEST_F(WeightsTest, LargeWeightsAreWhole) {
  const WeightSlice a = source_.add_bf16(2500, bf16_values(2500 * 100));
  const WeightSlice b = source_.add_bf16(501, bf16_values(501 * 100, 7));
  const auto weights = load(source_.write({{"large", {3001, 100}, DType::kF32, false, {a, b}},
                                           {"after", {501, 100}, DType::kF32, false, {b}}}));
  const auto large = read<float>(*weights, 0), after = read<float>(*weights, 1);
  for (size_t i = 0; i < large.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    ASSERT_EQ(large[i], value(index < 250000 ? index : index - 250000 + 7)) << i;
  }
  for (size_t i = 0; i < after.size(); ++i)
    ASSERT_EQ(after[i], value(static_cast<int64_t>(i) + 7)) << i;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(weights->data(1)) % 64, 0U);
}

TEST_F(WeightsTest, ReaderGivesAnyRows) {
  const auto first = bf16_values(8), second = bf16_values(12, 8);
  const WeightSlice a = source_.add_bf16(2, first), b = source_.add_bf16(3, second);
  const engine::Engine engine = source_.write({{"stacked", {5, 4}, DType::kBF16, false, {a, b}}});
  const WeightReader reader(engine);
  EXPECT_EQ(reader.in_place(engine.weights[0]), nullptr);
  const std::vector<uint16_t> all = bf16_values(20);
  for (int64_t begin = 0; begin <= 5; ++begin) {
    for (int64_t end = begin; end <= 5; ++end) {
      std::vector<uint16_t> rows(22, 0xdead);
      reader.read_rows(engine.weights[0], begin, end,
                       reinterpret_cast<std::byte*>(rows.data() + 1));
      std::vector<uint16_t> expected(22, 0xdead);
      std::copy(all.begin() + begin * 4, all.begin() + end * 4, expected.begin() + 1);
      EXPECT_EQ(rows, expected) << begin << " " << end;
    }
  }
}

TEST_F(WeightsTest, PackedIntoTheEngineTheyAreTheSame) {
  const auto stored = bf16_values(15);
  const WeightSlice slice = source_.add_bf16(3, stored);
  engine::Engine engine = engine::small_engine();
  const engine::Engine source = source_.write({{"turned", {5, 3}, DType::kF32, true, {slice}},
                                               {"as it is", {3, 5}, DType::kBF16, false, {slice}}});
  engine.weights = source.weights;
  engine.files = source.files;
  const std::string path = source_.path() + ".engine";
  {
    const WeightReader reader(engine);
    engine::write_engine(engine, path, [&](const Weight& weight, std::string* bytes) {
      bytes->resize(static_cast<size_t>(weight_bytes(weight)));
      reader.read_rows(weight, 0, weight.shape[0], reinterpret_cast<std::byte*>(bytes->data()));
    });
  }
  fs::remove(source_.path());  // the engine stands alone
  file_ = engine::EngineFile::open(path);
  {
    Weights weights(file_, *device_);
    weights.load();
    EXPECT_EQ(weights.copied_bytes(), 0);
    const auto turned = read<float>(weights, 0);
    for (size_t i = 0; i < turned.size(); ++i)
      EXPECT_EQ(turned[i], value(static_cast<int64_t>(i % 3 * 5 + i / 3)));
    EXPECT_EQ(read<uint16_t>(weights, 1), stored);
  }
  // One bit of a weight.
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(file_->weights_offset() + 5);
  file.put('\x7f');
  file.close();
  file_ = engine::EngineFile::open(path);
  try {
    Weights weights(file_, *device_);
    weights.load();
    ADD_FAILURE() << "damage was not seen";
  } catch (const Error& error) {
    EXPECT_NE(std::string_view(error.what()).find("the weights in the engine file are damaged"),
              std::string_view::npos)
        << error.what();
  }
  fs::remove(path);
}

// docs/dummy_weights.md: values belong to the checkpoint's tensors, so that stacking and turning
// them is the same as with files.
TEST_F(WeightsTest, GeneratedWeightsAreThoseOfTheTensors) {
  engine::Engine engine;
  engine.dummy_weights = true;
  engine.dummy_seed = 7;
  engine.weights = {{"stacked",
                     {5, 4},
                     DType::kF32,
                     false,
                     {{0, 0, 2, 8, DType::kBF16, "q"}, {0, 0, 3, 8, DType::kBF16, "k"}}},
                    {"turned", {5, 4}, DType::kF32, true, {{0, 0, 4, 10, DType::kBF16, "t"}}}};
  const auto weights = load(engine);
  const DummyTensor q(7, "q", std::vector<int64_t>{2, 4}), k(7, "k", std::vector<int64_t>{3, 4});
  const DummyTensor t(7, "t", std::vector<int64_t>{4, 5});
  const auto stacked = read<float>(*weights, 0), turned = read<float>(*weights, 1);
  for (size_t i = 0; i < 20; ++i) {
    const auto index = static_cast<int64_t>(i);
    EXPECT_EQ(stacked[i], index < 8 ? q.at(index) : k.at(index - 8)) << i;
    EXPECT_EQ(turned[i], t.at(index % 4 * 5 + index / 4)) << i;
  }
}

TEST_F(WeightsTest, FilesThatChangedAreRefused) {
  const WeightSlice slice = source_.add_bf16(3, bf16_values(12));
  const engine::Engine engine = source_.write({{"w", {3, 4}, DType::kBF16, false, {slice}}});
  const std::string changed = str("the weights have changed since the engine was built (",
                                  source_.path(), "); build the engine again");
  EXPECT_EQ(refusal(engine, ErrorCode::kBadInput), "");
  const auto time = fs::last_write_time(source_.path());
  fs::last_write_time(source_.path(), time + std::chrono::milliseconds(1));
  EXPECT_EQ(refusal(engine, ErrorCode::kBadInput), changed);

  std::ofstream(source_.path(), std::ios::app) << "x";
  fs::last_write_time(source_.path(), time);
  EXPECT_EQ(refusal(engine, ErrorCode::kBadInput), changed);

  fs::remove(source_.path());
  EXPECT_NE(refusal(engine, ErrorCode::kBadInput).find(source_.path()), std::string::npos);
}

// Pages that are gone read as zeros; whoever computed with them is told.
TEST_F(WeightsTest, AFileCutShortWhileInUseIsSeen) {
  const int64_t rows = 3000;  // some pages
  const WeightSlice slice = source_.add_bf16(rows, bf16_values(rows * 4));
  const auto weights = load(source_.write({{"w", {rows, 4}, DType::kBF16, false, {slice}}}));
  EXPECT_NO_THROW(weights->check_intact());
  fs::resize_file(source_.path(), 4096);
  EXPECT_EQ(read<uint16_t>(*weights, 0).back(), 0);
  EXPECT_THROW(weights->check_intact(), Error);
}

TEST_F(WeightsTest, WhatDoesNotFitIsRefusedBeforeItIsRead) {
  ASSERT_GT(device_->properties().memory_bytes, 0);
  engine::Engine engine;
  engine.manifest.model = "enormous";
  engine.dummy_weights = true;
  engine.weights = {
      {"w", {1 << 24, 1 << 24}, DType::kF32, false, {{0, 0, 1 << 24, 1 << 26, DType::kF32, "w"}}}};
  const std::string what = refusal(engine, ErrorCode::kFailed);
  EXPECT_NE(what.find("the model needs 1024 TiB for its weights"), std::string::npos) << what;
  EXPECT_NE(what.find("(enormous)"), std::string::npos) << what;
}

}  // namespace
}  // namespace millrace::runtime
