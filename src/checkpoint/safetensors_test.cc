#include "checkpoint/safetensors.h"

#include "checkpoint/test_folder.h"

namespace millrace {
namespace {

SafetensorsHeader parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes)), "f.safetensors");
}

std::string error_of(const std::string& bytes) {
  return bad_input_of([&] { parse(bytes); });
}

std::string error_of_header(const std::string& header, size_t data_size = 24) {
  return error_of(safetensors_bytes(header, std::string(data_size, '\0')));
}

TEST(Safetensors, ReadsWhatTheFormatDescribes) {
  const std::string bytes = safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
      R"("a":{"data_offsets":[0,4],"dtype":"F32","shape":[]},)"
      R"("none":{"dtype":"I64","shape":[3,0,7],"data_offsets":[16,16]},)"
      R"("fp8":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[16,19]}}   )",
      std::string(19, 'x'));
  const SafetensorsHeader header = parse(bytes);
  EXPECT_EQ(header.size, static_cast<int64_t>(bytes.size()) - 19);
  EXPECT_EQ(header.metadata.at("format"), "pt");
  ASSERT_EQ(header.entries.size(), 4u);
  EXPECT_EQ(header.entries[0].name, "a");
  EXPECT_EQ(header.entries[0].dtype, ir::DType::kF32);
  EXPECT_TRUE(header.entries[0].shape.empty());
  EXPECT_EQ(header.entries[0].begin, header.size);
  EXPECT_EQ(header.entries[1].name, "b");
  EXPECT_EQ(header.entries[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header.entries[1].begin, header.size + 4);
  EXPECT_EQ(header.entries[1].end, header.size + 16);
  EXPECT_EQ(header.entries[2].name, "none");
  EXPECT_EQ(header.entries[2].begin, header.entries[2].end);
  EXPECT_EQ(header.entries[3].end, static_cast<int64_t>(bytes.size()));
}

TEST(Safetensors, HoldsEveryTypeOfTheFormatThatWeHave) {
  for (const auto& [name, size] : std::vector<std::pair<std::string, int>>{{"F64", 8},
                                                                           {"F32", 4},
                                                                           {"F16", 2},
                                                                           {"BF16", 2},
                                                                           {"F8_E4M3", 1},
                                                                           {"F8_E5M2", 1},
                                                                           {"I64", 8},
                                                                           {"I32", 4},
                                                                           {"I16", 2},
                                                                           {"I8", 1},
                                                                           {"U64", 8},
                                                                           {"U32", 4},
                                                                           {"U16", 2},
                                                                           {"U8", 1},
                                                                           {"BOOL", 1}}) {
    const std::string header =
        str(R"({"t":{"dtype":")", name, R"(","shape":[3],"data_offsets":[0,)", 3 * size, "]}}");
    EXPECT_EQ(parse(safetensors_bytes(header, std::string(static_cast<size_t>(3 * size), 'x')))
                  .entries.size(),
              1u);
  }
  for (const char* name : {"F4", "F8_E8M0", "C64", "f32", "", "F32\\u0000"}) {
    const std::string header =
        str(R"({"t":{"dtype":")", name, R"(","shape":[3],"data_offsets":[0,3]}})");
    EXPECT_NE(error_of_header(header, 3).find("tensor \"t\": the type"), std::string::npos) << name;
  }
}

TEST(Safetensors, RefusesBadLengths) {
  const std::string good = R"({"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";
  EXPECT_EQ(error_of("1234567"), "not a safetensors file: only 7 bytes long (f.safetensors)");
  EXPECT_EQ(error_of(std::string(8, '\xff') + "{}"),
            "not a safetensors file: its header would have 18446744073709551615 bytes "
            "(f.safetensors)");
  EXPECT_EQ(error_of(safetensors_bytes(good, "").substr(0, 30)),
            "the header has 53 bytes, but only 22 follow (f.safetensors); the file may have been "
            "cut short: download it again");
  EXPECT_EQ(error_of(safetensors_bytes(good, "x")),
            "tensor \"t\" ends at byte 2 of the data, which has only 1 bytes (f.safetensors); the "
            "file may have been cut short: download it again");
  EXPECT_EQ(error_of(safetensors_bytes(good, "xyz")),
            "the last 1 bytes belong to no tensor (f.safetensors)");
  EXPECT_EQ(error_of(std::string(8, '\0') + "{}"),
            "the header does not begin with { (f.safetensors)");
  EXPECT_EQ(
      error_of("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n"),
      "the file is a Git LFS pointer and not the weights (f.safetensors); run `git lfs pull`");
}

struct Hostile {
  const char* header;
  const char* message;
};

class HostileHeader : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileHeader, IsRefusedWithTheTensorsName) {
  EXPECT_EQ(error_of_header(GetParam().header), str(GetParam().message, " (f.safetensors)"));
}

INSTANTIATE_TEST_SUITE_P(
    Json, HostileHeader,
    ::testing::Values(
        Hostile{"{", "the JSON is broken at byte 2"},
        Hostile{"{}x", "the JSON is broken at byte 3"},
        Hostile{"{\"t\"}", "the JSON is broken at byte 5"},
        Hostile{"{\"\xff\":1}", "the JSON is broken at byte 3"},
        Hostile{"{\"a\\ud800\":1}", "the JSON is broken at byte 10"},
        Hostile{R"({"t":[]})", R"(tensor "t": its description is an array instead of an object)"},
        Hostile{R"({"t":3})", R"(tensor "t": its description is a number instead of an object)"},
        Hostile{R"({"t":null})", R"(tensor "t": its description is null instead of an object)"},
        Hostile{R"({"t":{}})", R"(tensor "t": dtype is missing)"},
        Hostile{R"({"__metadata__":3})", "__metadata__ is a number instead of an object"},
        Hostile{R"({"__metadata__":{"a":1}})",
                R"(the metadata's "a" is a number instead of a string)"},
        Hostile{R"({"__metadata__":{"a":{}}})",
                R"(the metadata's "a" is an object instead of a string)"},
        Hostile{R"({"__metadata__":{"a":"1","a":"2"}})", R"(the metadata has "a" twice)"},
        Hostile{R"({"a\u001b[2J\n":{}})", R"(tensor "a?[2J?": dtype is missing)"}));

INSTANTIATE_TEST_SUITE_P(
    Fields, HostileHeader,
    ::testing::Values(
        Hostile{R"({"t":{"dtype":"F32"}})", R"(tensor "t": shape is missing)"},
        Hostile{R"({"t":{"dtype":"F32","shape":[6]}})", R"(tensor "t": data_offsets is missing)"},
        Hostile{R"({"t":{"dtype":7}})", R"(tensor "t": dtype is a number instead of a string)"},
        Hostile{R"({"t":{"dtype":["F32"]}})",
                R"(tensor "t": dtype is an array instead of a string)"},
        Hostile{R"({"t":{"shape":"6"}})", R"(tensor "t": shape is a string instead of an array)"},
        Hostile{R"({"t":{"shape":{"0":6}}})",
                R"(tensor "t": shape is an object instead of an array)"},
        Hostile{R"({"t":{"shape":[-6]}})",
                R"(tensor "t": shape holds the number -6 instead of a whole number of at least 0)"},
        Hostile{
            R"({"t":{"shape":[6.0]}})",
            R"(tensor "t": shape holds the number 6.0 instead of a whole number of at least 0)"},
        Hostile{
            R"({"t":{"shape":[1e99]}})",
            R"(tensor "t": shape holds the number 1e99 instead of a whole number of at least 0)"},
        Hostile{R"({"t":{"shape":[[6]]}})",
                R"(tensor "t": shape holds an array instead of a whole number of at least 0)"},
        Hostile{R"({"t":{"shape":[true]}})",
                R"(tensor "t": shape holds a boolean instead of a whole number of at least 0)"},
        Hostile{R"({"t":{"shape":[9223372036854775808]}})",
                R"(tensor "t": shape holds 9223372036854775808, which is too large)"},
        Hostile{R"({"t":{"data_offsets":[0]}})",
                R"(tensor "t": data_offsets holds 1 numbers instead of 2)"},
        Hostile{R"({"t":{"data_offsets":[0,24,48]}})",
                R"(tensor "t": data_offsets holds 3 numbers instead of 2)"},
        Hostile{R"({"t":{"data_offsets":null}})",
                R"(tensor "t": data_offsets is null instead of an array)"},
        Hostile{R"({"t":{"color":"red"}})", R"(tensor "t": unknown key "color")"},
        Hostile{R"({"t":{"dtype":"F32","dtype":"F16"}})", R"(tensor "t": dtype is there twice)"},
        Hostile{R"({"t":{"shape":[],"shape":[]}})", R"(tensor "t": shape is there twice)"},
        Hostile{R"({"t":{"data_offsets":[0,1],"data_offsets":[0,1]}})",
                R"(tensor "t": data_offsets is there twice)"}));

INSTANTIATE_TEST_SUITE_P(
    Layout, HostileHeader,
    ::testing::Values(
        Hostile{R"({"t":{"dtype":"F32","shape":[6],"data_offsets":[24,0]}})",
                R"(tensor "t": data_offsets [24, 0] run backwards)"},
        Hostile{R"({"t":{"dtype":"F32","shape":[5],"data_offsets":[0,24]}})",
                R"(tensor "t": shape [5] of F32 takes 20 bytes, but data_offsets [0, 24] hold 24)"},
        Hostile{R"({"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,24]}})",
                R"(tensor "t": shape [4294967296, 4294967296] is too large)"},
        // 2^62 elements of 4 bytes are 0 modulo 2^64.
        Hostile{R"({"t":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})",
                R"(tensor "t": shape [4611686018427387904] is too large)"},
        Hostile{R"({"t":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}})",
                R"(tensor "t": shape [0, 4611686018427387904, 4] is too large)"},
        Hostile{R"({"t":{"dtype":"U8","shape":[24],"data_offsets":[0,24]},)"
                R"("t":{"dtype":"U8","shape":[24],"data_offsets":[0,24]}})",
                R"(tensor "t" is there twice)"},
        Hostile{R"({"a":{"dtype":"U8","shape":[24],"data_offsets":[0,24]},)"
                R"("b":{"dtype":"U8","shape":[24],"data_offsets":[0,24]}})",
                R"(tensor "b" overlaps tensor "a")"},
        Hostile{R"({"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},)"
                R"("b":{"dtype":"U8","shape":[9],"data_offsets":[15,24]}})",
                R"(tensor "b" overlaps tensor "a")"},
        Hostile{R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
                R"("b":{"dtype":"U8","shape":[8],"data_offsets":[16,24]}})",
                R"(the bytes 8 to 16 before tensor "b" belong to no tensor)"},
        Hostile{R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[16,24]}})",
                R"(the bytes 0 to 16 before tensor "a" belong to no tensor)"},
        Hostile{"{}", "the last 24 bytes belong to no tensor"}));

TEST(Safetensors, LongNamesAreShortenedInMessages) {
  const std::string message = error_of_header(R"({")" + std::string(5000, 'n') + R"(":{}})");
  EXPECT_LT(message.size(), 300u);
  EXPECT_NE(message.find("nnn...\": dtype is missing"), std::string::npos);
}

TEST(Safetensors, DeepNestingIsRefusedAtItsFirstLevel) {
  const std::string deep = R"({"t":{"shape":)" + std::string(1'000'000, '[');
  EXPECT_EQ(error_of_header(deep),
            "tensor \"t\": shape holds an array instead of a whole number of at least 0 "
            "(f.safetensors)");
}

std::string index_error(const std::string& json) {
  return bad_input_of([&] { parse_safetensors_index(json, "i.json"); });
}

TEST(SafetensorsIndex, ReadsTheWeightMap) {
  const auto map = parse_safetensors_index(
      R"({"metadata":{"total_size":3,"x":[{"weight_map":{"q":1}}]},"weight_map":)"
      R"({"a":"1.safetensors","b":"2.safetensors"},"more":null})",
      "i.json");
  EXPECT_EQ(map.size(), 2u);
  EXPECT_EQ(map.at("b"), "2.safetensors");
}

TEST(SafetensorsIndex, RefusesEverythingElse) {
  EXPECT_EQ(index_error("[]"), "the index is an array instead of an object (i.json)");
  EXPECT_EQ(index_error("3"), "the index is a number instead of an object (i.json)");
  EXPECT_EQ(index_error("{}"), "weight_map is missing (i.json)");
  EXPECT_EQ(index_error("{"), "the JSON is broken at byte 2 (i.json)");
  EXPECT_EQ(index_error(R"({"weight_map":[]})"),
            "weight_map is an array instead of an object (i.json)");
  EXPECT_EQ(index_error(R"({"weight_map":7})"),
            "weight_map is a number instead of an object (i.json)");
  EXPECT_EQ(index_error(R"({"weight_map":{"a":7}})"),
            "tensor \"a\": its file is a number instead of a name (i.json)");
  EXPECT_EQ(index_error(R"({"weight_map":{"a":{"b":"c"}}})"),
            "tensor \"a\": its file is an object instead of a name (i.json)");
  EXPECT_EQ(index_error(R"({"weight_map":{"a":"1","a":"2"}})"),
            "tensor \"a\" is there twice (i.json)");
  EXPECT_EQ(index_error(R"({"weight_map":{},"weight_map":{}})"),
            "weight_map is there twice (i.json)");
}

TEST(SafetensorsIndex, NamesStayInTheFolder) {
  for (const char* name : {"../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "",
                           "a\\\\b", "x.safetensors\\u0000/../y"}) {
    const std::string message = index_error(str(R"({"weight_map":{"a":")", name, "\"}}"));
    EXPECT_NE(message.find("is not the name of a file in the same folder"), std::string::npos)
        << message;
    EXPECT_NE(message.find("tensor \"a\""), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace millrace
