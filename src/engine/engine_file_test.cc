#include "engine/engine_file.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "engine/engine_json.h"
#include "engine/test_engine.h"
#include "engine/validate.h"
#include "engine/weight_order.h"

namespace millrace::engine {
namespace {

namespace fs = std::filesystem;
using ::testing::TempDir;

std::string message(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput);
    EXPECT_EQ(std::string_view(e.what()).find('\n'), std::string_view::npos) << e.what();
    return e.what();
  }
  return "";
}

void expect_equal(const Engine& a, const Engine& b) {
  // Everything but the graph and the assets' bytes is in the plan's text.
  EXPECT_EQ(plan_to_json(a, {}), plan_to_json(b, {}));
  EXPECT_EQ(print(a.graph), print(b.graph));
  ASSERT_EQ(a.encoder.has_value(), b.encoder.has_value());
  if (a.encoder) {
    EXPECT_EQ(print(a.encoder->graph), print(b.encoder->graph));
  }
  ASSERT_EQ(a.assets.size(), b.assets.size());
  for (size_t i = 0; i < a.assets.size(); ++i) {
    EXPECT_EQ(a.assets[i].name, b.assets[i].name);
    EXPECT_EQ(a.assets[i].bytes, b.assets[i].bytes);
  }
}

// An encoder that shares the weight "w", has one of its own, and passes on a cross cache.
Engine with_encoder() {
  Engine engine = small_engine();
  engine.manifest.kind = ModelKind::kEncoderDecoder;
  engine.manifest.max_encoder_len = 8;
  engine.kv_groups[0].cross = true;
  engine.encoder.emplace();
  engine.encoder->graph = ir::parse(
      "graph e { dim T <= 8 %0: f32[T, 2] = input() {name=\"x\"} "
      "%1: f32[3, 2] = weight() {name=\"v\"} %2: f32[3, 2] = weight() {name=\"w\"} "
      "%3: state[] = input() {name=\"kv.0\"} %4: f32[T, 3] = matmul(%0, %1) "
      "%5: f32[T, 3] = matmul(%0, %2) return y=%4, z=%5, kv=%3 }",
      "test");
  engine.encoder->launches = {{.node = 4, .choices = {{8, "rows"}}},
                              {.node = 5, .choices = {{8, "rows"}}}};
  engine.encoder->regimes = {
      {"context", {{"T", 8}}, 256, {{}, {}, {}, {}, {0, 96}, {128, 96}}, {{}, {}}}};
  engine.encoder->captures = {{0, 2, true}};
  engine.encoder->head_begin = 2;
  engine.weights.push_back(engine.weights[0]);
  engine.weights[1].name = "v";
  return engine;
}

class EngineFileTest : public ::testing::Test {
 protected:
  EngineFileTest() : folder_(fs::path(TempDir()) / str("engine_file_", getpid())) {
    fs::create_directories(folder_);
  }
  ~EngineFileTest() override { fs::remove_all(folder_); }

  std::string path(const std::string& name = "e.engine") const { return (folder_ / name).string(); }
  std::string read() const {
    std::ifstream in(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::string open(const std::string& bytes) const {
    std::ofstream(path("changed"), std::ios::binary) << bytes;
    return message([&] { EngineFile::open(path("changed")); });
  }

  const fs::path folder_;
};

// As docs/engine_format.md states them.
template <typename T>
T field(const std::string& file, size_t offset) {
  T value;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}
constexpr size_t kHeaderBytes = 120, kHashOffset = 112;

// A header whose checksum is right, so that what comes after it is reached.
std::string with_field(std::string file, size_t offset, uint64_t value) {
  std::memcpy(file.data() + offset, &value, sizeof value);
  const uint64_t hash = hash64(std::string_view(file).substr(0, kHashOffset));
  std::memcpy(file.data() + kHashOffset, &hash, sizeof hash);
  return file;
}

TEST_F(EngineFileTest, ComesBackAsItWas) {
  write_engine(small_engine(), path(), nullptr);
  const auto file = EngineFile::open(path());
  expect_equal(file->engine(), small_engine());
  EXPECT_EQ(file->weights_bytes(), 0);
  EXPECT_EQ(file->engine().find_asset("a")->bytes, "b");
  EXPECT_EQ(file->engine().find_asset("none"), nullptr);
  EXPECT_TRUE(looks_like_engine(path()));
}

TEST_F(EngineFileTest, HeaderIsAsDocumented) {
  write_engine(small_engine(), path(), nullptr);
  const std::string file = read();
  EXPECT_EQ(file.substr(0, 8), "MILLRACE");
  EXPECT_EQ(field<uint32_t>(file, 8), kFormatVersion);
  EXPECT_EQ(field<uint32_t>(file, 12), kHeaderBytes);
  EXPECT_EQ(field<uint64_t>(file, 16), file.size());
  for (const size_t section : {24, 48, 72}) {  // plan, graph, assets: offset, bytes, XXH3-64
    const std::string bytes =
        file.substr(field<uint64_t>(file, section), field<uint64_t>(file, section + 8));
    EXPECT_EQ(hash64(bytes), field<uint64_t>(file, section + 16)) << section;
  }
  EXPECT_EQ(field<uint64_t>(file, 96), 4096U);
  EXPECT_EQ(field<uint64_t>(file, 104), 0U);
  EXPECT_EQ(field<uint64_t>(file, 112), hash64(std::string_view(file).substr(0, 112)));
}

TEST_F(EngineFileTest, HoldsAnEncoderBesideTheGraph) {
  const Engine written = with_encoder();
  write_engine(written, path(), nullptr);
  expect_equal(EngineFile::open(path())->engine(), written);
}

TEST(EngineWeights, ThoseOfBothGraphsAreListedOnce) {
  const Engine engine = with_encoder();
  const WeightOrder order = weight_order(engine);
  EXPECT_EQ(order.graph, (std::vector<size_t>{0}));
  EXPECT_EQ(order.encoder, (std::vector<size_t>{1, 0}));
  ASSERT_EQ(order.nodes.size(), 2U);
  EXPECT_EQ(order.nodes[0].first, &engine.graph);
  EXPECT_EQ(order.nodes[1].first, &engine.encoder->graph);
}

TEST_F(EngineFileTest, PackedWeightsAreChecked) {
  Engine engine = small_engine();
  engine.weights = {{"big", {3, 700000}, ir::DType::kF32, false, {}},
                    {"w", {3, 2}, ir::DType::kF32, true, {}}};
  write_engine(engine, path(), [](const Weight& weight, std::string* bytes) {
    bytes->assign(static_cast<size_t>(weight.shape[0] * weight.shape[1] * 4), weight.name[0]);
  });
  const auto file = EngineFile::open(path());
  const Engine& packed = file->engine();
  EXPECT_TRUE(packed.files.empty());
  ASSERT_EQ(packed.weights.size(), 2U);
  EXPECT_FALSE(packed.weights[1].transposed);
  const WeightSlice& small = packed.weights[1].slices.at(0);
  EXPECT_EQ(small.file, -1);
  EXPECT_EQ(small.offset, 8400000);  // a multiple of 64 already
  EXPECT_EQ(small.row_bytes, 8);
  EXPECT_EQ(file->weights_bytes(), 8400024);
  const auto* bytes = reinterpret_cast<const char*>(file->file().data() + file->weights_offset());
  EXPECT_EQ(std::string(bytes + small.offset, 24), std::string(24, 'w'));
  EXPECT_NO_THROW(file->verify_weights(0, file->weights_bytes()));

  // One bit in the second of three chunks.
  std::string damaged = read();
  const size_t at = 4096 + (size_t{4} << 20) + 17;
  damaged[at] = static_cast<char>(damaged[at] ^ 1);
  std::ofstream(path("changed"), std::ios::binary) << damaged;
  const auto other = EngineFile::open(path("changed"));
  EXPECT_NO_THROW(other->verify_weights(0, kChunkBytes));
  EXPECT_NO_THROW(other->verify_weights(small.offset, 24));
  EXPECT_EQ(message([&] { other->verify_weights(0, 8400000); }),
            str("the weights in the engine file are damaged (", path("changed"),
                "); build it again with `millrace build`"));
}

TEST_F(EngineFileTest, CutShortAnywhereIsAnError) {
  write_engine(small_engine(), path(), nullptr);
  const std::string whole = read();
  for (size_t size = 1; size < whole.size(); size += size < 130 ? 1 : 97)
    ASSERT_NE(open(whole.substr(0, size)), "") << size;
  EXPECT_NE(open(whole + "x"), "");
}

TEST_F(EngineFileTest, EveryFlippedByteIsSeen) {
  write_engine(small_engine(), path(), nullptr);
  const std::string whole = read();
  for (size_t at = 0; at < whole.size(); at += at < kHeaderBytes ? 1 : 3) {
    if (at == kHeaderBytes) at = 4096;  // padding
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << at % 8));
    ASSERT_NE(open(flipped), "") << at;
  }
}

TEST_F(EngineFileTest, SaysWhatIsWrong) {
  write_engine(small_engine(), path(), nullptr);
  const std::string whole = read(), where = str(" (", path("changed"), "); ");
  const std::string rebuild = where + "build it again with `millrace build`";
  std::string newer = whole;
  newer[8] = 9;
  EXPECT_EQ(open(newer), "the engine file has format version 9, this program reads 2" + rebuild);
  newer[8] = 0;
  EXPECT_EQ(open(newer), "the engine file has format version 0, this program reads 2" + rebuild);
  EXPECT_EQ(open("{\"json\": true, \"and\": \"long\"}"),
            "this is not an engine file" + where +
                "give a model folder or a file made by `millrace build`");
  EXPECT_EQ(open(whole.substr(0, 100)), "the engine file is cut short" + rebuild);
  EXPECT_EQ(open(whole.substr(0, whole.size() - 1)),
            str("the engine file has ", whole.size() - 1, " bytes and should have ", whole.size(),
                rebuild));
  std::string bent = whole;
  bent[60] ^= 1;
  EXPECT_EQ(open(bent), "the engine file's header is damaged" + rebuild);
  bent = whole;
  bent[field<uint64_t>(whole, 24)] ^= 1;
  EXPECT_EQ(open(bent), "the engine file's plan is damaged" + rebuild);
  EXPECT_FALSE(looks_like_engine(path("none")));
  EXPECT_FALSE(looks_like_engine(folder_.string()));
}

// Text that reads as a graph but is none: the engine is at fault, not a pass.
TEST_F(EngineFileTest, InvalidGraphsAreBadInput) {
  Engine engine = small_engine();
  engine.graph = ir::parse(
      "graph g { %0: f32[2] = input() {name=\"x\"} %1: f32[2] = input() {name=\"x\"} return y=%0 }",
      "test");
  write_engine(engine, path(), nullptr);
  EXPECT_EQ(message([&] { EngineFile::open(path()); }),
            str("the engine file holds an invalid graph: two inputs are called x (", path(),
                "); build it again with `millrace build`"));
}

TEST_F(EngineFileTest, HostileOffsetsStayInside) {
  write_engine(small_engine(), path(), nullptr);
  const std::string whole = read();
  for (const uint64_t value : {uint64_t{1} << 20, uint64_t{1} << 63, ~uint64_t{0}}) {
    for (const size_t offset : {24, 32, 48, 56, 72, 80, 96, 104})
      EXPECT_NE(open(with_field(whole, offset, value)), "") << offset << " " << value;
  }
}

TEST(EnginePlan, RefusesAPathThatJsonCannotHold) {
  Engine engine = small_engine();
  engine.files.push_back(
      {.path = "/tmp/caf\xe9/model.safetensors", .size = 1, .mtime_ns = 1, .header_hash = ""});
  EXPECT_NE(message([&] { plan_to_json(engine, {}); }).find("not UTF-8"), std::string::npos);
}

TEST(EnginePlan, HostileTextIsAnError) {
  const std::string good = plan_to_json(small_engine(), {1, ~uint64_t{0}});
  const auto parse = [](const std::string& text) {
    Engine engine;
    PlanParts parts;
    return message([&] { plan_from_json(text, &engine, &parts); });
  };
  EXPECT_EQ(parse(good), "");
  for (size_t size = 0; size < good.size(); size += 7)
    ASSERT_NE(parse(good.substr(0, size)), "") << size;
  for (const char* text : {"", "null", "[]", "{}", "1", "\"x\"", "\xff", "{\"manifest\": {}}"})
    EXPECT_NE(parse(text), "") << text;
  EXPECT_NE(parse(std::string(100000, '[')), "");
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"\"vocab_size\":100", "\"vocab_size\":\"100\""},
           {"\"untimed\":true", "\"untimed\":3"},
           {"\"dtype\":\"bf16\"", "\"dtype\":\"f12\""},
           {"\"dtype\":\"bf16\"", "\"dtype\":\"state\""},
           {"\"shape\":[3,2]", "\"shape\":[3,null]"},
           {"[0,128]", "[0]"},
           {"[0,128]", "[0,128.0]"},
           {"\"chunk_hashes\":[1,", "\"chunk_hashes\":[18446744073709551616,"},
           {"\"layers\":[\"kv.0\"]", "\"layers\":[7]"},
           {"\"node\":3", "\"node\":true"},
           {"\"chunk_hashes\":[1,", "\"chunk_hashes\":[{},"}}) {
    std::string text = good;
    ASSERT_NE(text.find(from), std::string::npos) << from;
    EXPECT_NE(parse(text.replace(text.find(from), from.size(), to)), "") << to;
  }
}

// Numbers that are valid once the bits which do not fit are cut off.
TEST(EnginePlan, NumbersThatDoNotFitAreErrors) {
  const std::string good = plan_to_json(small_engine(), {});
  for (const std::string field :
       {"\"node\":3", "\"kv_heads\":2", "\"k_size\":4", "\"v_size\":6", "\"window\":16",
        "\"sink_tokens\":3", "\"file\":0", "\"begin\":0", "\"end\":1", "\"head_begin\":0"}) {
    const size_t at = good.find(field), colon = field.find(':') + 1;
    ASSERT_NE(at, std::string::npos) << field;
    const int64_t number = std::stoll(field.substr(colon));
    for (const std::string& other :
         {str(number + (int64_t{1} << 32)), str(number - (int64_t{1} << 32)), str(int64_t{1} << 31),
          str(uint64_t{1} << 63)}) {
      std::string text = good;
      text.replace(at, field.size(), field.substr(0, colon) + other);
      Engine engine;
      PlanParts parts;
      EXPECT_NE(message([&] {
                  plan_from_json(text, &engine, &parts);
                }).find("a number out of range: " + other),
                std::string::npos)
          << field << " as " << other;
    }
  }
}

// One fault at a time, each with its own words.
TEST(EngineValidate, NamesWhatDoesNotFit) {
  const auto fault = [](const std::function<void(Engine&)>& plant) {
    Engine engine = small_engine();
    plant(engine);
    const std::string text = message([&] { validate(engine, 0, "e"); });
    const std::string head = "the engine file describes ";
    return text.starts_with(head) ? text.substr(head.size(), text.find(" (e)") - head.size())
                                  : text;
  };
  EXPECT_EQ(fault([](Engine&) {}), "");
  const auto limit = [&](int64_t Manifest::* field, int64_t value) {
    return fault([&](Engine& e) { e.manifest.*field = value; });
  };
  for (const auto member :
       {&Manifest::vocab_size, &Manifest::max_positions, &Manifest::max_batch_size,
        &Manifest::max_beam_width, &Manifest::max_seq_len, &Manifest::max_num_tokens}) {
    for (const int64_t value : {int64_t{0}, int64_t{-1}, int64_t{1} << 31})
      EXPECT_EQ(limit(member, value), "a limit out of range");
  }
  EXPECT_EQ(fault([](Engine& e) { e.launches[0].node = 4; }), "a launch of no node");
  EXPECT_EQ(fault([](Engine& e) { e.launches[0].node = -1; }), "a launch of no node");
  EXPECT_EQ(fault([](Engine& e) { e.launches[0].choices.clear(); }), "a launch without a tactic");
  EXPECT_EQ(fault([](Engine& e) { e.launches[0].choices[1].max_rows = 1; }),
            "tactic buckets out of order");
  EXPECT_EQ(fault([](Engine& e) { e.head_begin = 2; }), "a head beyond the launches");
  EXPECT_EQ(fault([](Engine& e) { e.captures[0].end = 2; }),
            "capture regions that do not follow each other");
  EXPECT_EQ(fault([](Engine& e) { e.regimes.pop_back(); }), "not two regimes");
  EXPECT_EQ(fault([](Engine& e) { e.manifest.kind = ModelKind::kEncoderDecoder; }),
            "a kind of model that its graphs are not");
  EXPECT_EQ(fault([](Engine& e) { e.manifest.max_encoder_len = 8; }),
            "a kind of model that its graphs are not");
  EXPECT_EQ(fault([](Engine& e) { e = with_encoder(); }), "");
  EXPECT_EQ(fault([](Engine& e) {
              e = with_encoder();
              e.encoder->regimes.clear();
            }),
            "an encoder without its one regime");
  EXPECT_EQ(fault([](Engine& e) {
              e = with_encoder();
              e.kv_groups[0].cross = false;
            }),
            "an encoder that writes a cache which the decoder does not have");
  EXPECT_EQ(fault([](Engine& e) { e.regimes[0].values.pop_back(); }),
            "a memory plan for another graph");
  EXPECT_EQ(fault([](Engine& e) { e.regimes[1].workspaces.clear(); }),
            "a memory plan for other launches");
  EXPECT_EQ(fault([](Engine& e) { e.regimes[0].arena_bytes = int64_t{1} << 46; }),
            "an absurd arena");
  for (const PlannedBuffer buffer :
       {PlannedBuffer{-64, 8}, PlannedBuffer{1, 8}, PlannedBuffer{192, 128}, PlannedBuffer{0, -1},
        PlannedBuffer{int64_t{1} << 62, int64_t{1} << 62}}) {
    EXPECT_EQ(fault([&](Engine& e) { e.regimes[0].values[3] = buffer; }),
              "a buffer outside its arena");
  }
  EXPECT_EQ(fault([](Engine& e) { e.regimes[0].maxima[0].max = 0; }), "a symbol out of range");
  EXPECT_EQ(fault([](Engine& e) { e.regimes[0].maxima.clear(); }), "a symbol without a maximum");
  EXPECT_EQ(fault([](Engine& e) { e.regimes[0].values[3].bytes = 95; }),
            "a buffer smaller than its value");
  for (const char* type : {"", "int8", "i32", "f64", "state"}) {
    EXPECT_EQ(fault([&](Engine& e) { e.manifest.kv_dtype = type; }), "a KV cache of no known type");
  }
  for (const char* type : {"f32", "bf16", "f16", "f8e4m3", "i8"})
    EXPECT_EQ(fault([&](Engine& e) { e.manifest.kv_dtype = type; }), "");
  EXPECT_EQ(fault([](Engine& e) { e.kv_groups[0].k_size = 0; }), "a KV group of absurd size");
  EXPECT_EQ(fault([](Engine& e) { e.kv_groups[0].window = -1; }), "a negative window");
  EXPECT_EQ(fault([](Engine& e) { e.kv_groups[0].layers = {"x"}; }),
            "a KV layer that the graph does not have");
  EXPECT_EQ(fault([](Engine& e) { e.weights[0].shape.clear(); }), "a weight without a shape");
  EXPECT_EQ(fault([](Engine& e) { e.weights[0].shape[0] = 0; }),
            "a weight with an empty dimension");
  EXPECT_EQ(fault([](Engine& e) { e.weights[0].shape = {1 << 24, 1 << 24}; }),
            "a weight of absurd size");
  EXPECT_EQ(fault([](Engine& e) { e.weights[0].slices[0].file = 1; }), "a weight in no file");
  EXPECT_EQ(fault([](Engine& e) { e.weights[0].slices[0].file = -2; }), "a weight in no file");
  EXPECT_EQ(fault([](Engine& e) { e.weights[0].slices[0].file = -1; }),
            "a weight outside its file");
  EXPECT_EQ(fault([](Engine& e) { e.weights[0].slices[1].offset = 993; }),
            "a weight outside its file");
  EXPECT_EQ(fault([](Engine& e) { e.weights[0].slices[0].row_bytes = 7; }),
            "a weight with half an element");
  const auto types = [&](ir::DType stored, ir::DType wanted) {
    return fault([&](Engine& e) {
      e.weights[0].dtype = wanted;
      e.weights[0].slices = {{0, 0, 3, 2 * ir::dtype_size(stored), stored, "w"}};
    });
  };
  const std::string unconvertible = "a weight whose type cannot be converted";
  EXPECT_EQ(types(ir::DType::kF8E5M2, ir::DType::kF16), "");
  EXPECT_EQ(types(ir::DType::kI8, ir::DType::kI8), "");
  EXPECT_EQ(types(ir::DType::kI8, ir::DType::kF32), unconvertible);
  EXPECT_EQ(types(ir::DType::kF32, ir::DType::kI32), unconvertible);
  EXPECT_EQ(types(ir::DType::kF32, ir::DType::kF8E4M3), unconvertible);
  EXPECT_EQ(types(ir::DType::kF32, ir::DType::kF64), unconvertible);
  EXPECT_EQ(fault([](Engine& e) {
              e.dummy_weights = true;
              e.weights[0].dtype = ir::DType::kI8;
            }),
            unconvertible);
  EXPECT_EQ(fault([](Engine& e) { e.weights[0].slices.pop_back(); }),
            "a weight whose parts do not give its shape");
  // As many elements as the shape has, but a row read from the second slice would leave it.
  EXPECT_EQ(fault([](Engine& e) {
              e.weights[0].slices = {{0, 0, 1, 4, ir::DType::kF32, ""},
                                     {0, 4, 2, 10, ir::DType::kBF16, ""}};
            }),
            "a weight whose rows are not those of its shape");
  EXPECT_EQ(fault([](Engine& e) { e.weights[0].transposed = true; }),
            "a transposed weight that is not one tensor of matrices");
  EXPECT_EQ(fault([](Engine& e) {
              e.dummy_weights = true;
              e.weights[0].slices[1].rows = 1;
            }),
            "a weight whose parts do not give its shape");
}

}  // namespace
}  // namespace millrace::engine
