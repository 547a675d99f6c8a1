#include "checkpoint/hf_config.h"

#include "checkpoint/test_folder.h"

namespace millrace {
namespace {

HfConfig parse(const std::string& text) {
  return HfConfig::parse(text, "config.json");
}

template <typename F>
std::string error_of(const std::string& text, const F& read) {
  return bad_input_of([&] { read(parse(text)); });
}

TEST(HfConfig, ReadsEveryType) {
  const HfConfig config =
      parse(R"({"i":5,"whole":4096.0,"e":1e6,"f":0.5,"b":true,"s":"silu","n":null,"ints":[1,2.0],)"
            R"("floats":[1,2.5],"strings":["a"],"lists":[[1],[2,3]],"o":{"x":7}})");
  EXPECT_EQ(config.get_int("i"), 5);
  EXPECT_EQ(config.get_int("whole"), 4096);
  EXPECT_EQ(config.get_int("e"), 1000000);
  EXPECT_EQ(config.get_float("f"), 0.5);
  EXPECT_EQ(config.get_float("i"), 5.0);
  EXPECT_TRUE(config.get_bool("b", false));
  EXPECT_EQ(config.get_string("s"), "silu");
  EXPECT_EQ(config.get_ints("ints"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(config.get_floats("floats"), (std::vector<double>{1, 2.5}));
  EXPECT_EQ(config.get_strings("strings"), std::vector<std::string>{"a"});
  EXPECT_EQ(config.get_int_lists("lists"), (std::vector<std::vector<int64_t>>{{1}, {2, 3}}));
  EXPECT_EQ(config.object("o").get_int("x"), 7);
  EXPECT_TRUE(config.has("i"));
  EXPECT_FALSE(config.has("n"));
  EXPECT_TRUE(config.is_null("n"));
  EXPECT_FALSE(config.is_null("absent"));
}

TEST(HfConfig, NullAndAbsentTakeTheFallback) {
  const HfConfig config = parse(R"({"n":null})");
  for (const char* key : {"n", "absent"}) {
    EXPECT_EQ(config.get_int(key, 3), 3);
    EXPECT_EQ(config.get_float(key, 0.25), 0.25);
    EXPECT_TRUE(config.get_bool(key, true));
    EXPECT_EQ(config.get_string(key, "gelu"), "gelu");
    EXPECT_TRUE(config.get_ints(key).empty());
    EXPECT_EQ(bad_input_of([&] { config.get_int(key); }), str(key, " is missing (config.json)"));
    EXPECT_EQ(bad_input_of([&] { config.object(key); }), str(key, " is missing (config.json)"));
  }
}

TEST(HfConfig, WrongSizesAreRefusedWithKeyAndValue) {
  const auto size = [](const HfConfig& config) { config.get_int("hidden_size"); };
  const std::string range = " instead of a whole number from 1 to 1073741824 (config.json)";
  for (const auto& [value, shown] : std::vector<std::pair<std::string, std::string>>{
           {"0", "0"},
           {"-64", "-64"},
           {"64.5", "64.5"},
           {"1073741825", "1073741825"},
           {"18446744073709551615", "18446744073709551615"},
           {"1e300", "1e+300"},
           {"true", "true"},
           {"\"64\"", "\"64\""},
           {"[64]", "a list"},
           {"{}", "an object"}}) {
    EXPECT_EQ(error_of(R"({"hidden_size":)" + value + "}", size),
              "hidden_size is " + shown + range);
  }
}

TEST(HfConfig, WrongTypesAreRefusedWithTheKey) {
  const std::string text =
      R"({"i":5,"s":"x","list":[1,"x"],"o":{"k":-1},"deep":{"er":{"v":"w"}},"f":-0.5})";
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.get_bool("i", false); }),
            "i is 5 instead of true or false (config.json)");
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.get_string("i"); }),
            "i is 5 instead of a string (config.json)");
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.get_float("s"); }),
            "s is \"x\" instead of a number (config.json)");
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.get_float("f", kPositive); }),
            "f is -0.5 instead of a number above 0 (config.json)");
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.get_float("f", FloatRange{0, 1}); }),
            "f is -0.5 instead of a number from 0 to 1 (config.json)");
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.get_ints("list"); }),
            "list holds \"x\" instead of a whole number (config.json)");
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.get_strings("list"); }),
            "list holds 1 instead of a string (config.json)");
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.get_ints("i"); }),
            "i is 5 instead of a list (config.json)");
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.object("i"); }),
            "i is 5 instead of an object (config.json)");
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.object("o").get_int("k"); }),
            "o.k is -1 instead of a whole number from 1 to 1073741824 (config.json)");
  EXPECT_EQ(error_of(text, [](const HfConfig& c) { c.object("deep").object("er").get_int("v"); }),
            "deep.er.v is \"w\" instead of a whole number from 1 to 1073741824 (config.json)");
}

TEST(HfConfig, BrokenFilesAreRefused) {
  const auto nothing = [](const HfConfig&) {};
  EXPECT_EQ(error_of("{", nothing), "the JSON is broken at byte 2 (config.json)");
  EXPECT_EQ(error_of("", nothing), "the JSON is broken at byte 1 (config.json)");
  EXPECT_EQ(error_of("[1]", nothing), "the JSON is not an object (config.json)");
  EXPECT_EQ(error_of("{\"a\":1e999}", nothing),
            "the JSON holds a number that is out of range (config.json)");
  EXPECT_EQ(error_of("{\"a\":\"\xff\"}", nothing), "the JSON is broken at byte 7 (config.json)");
  EXPECT_EQ(error_of(std::string(100000, '['), nothing).substr(0, 18), "the JSON is broken");
}

TEST(HfConfig, FoldersAreCheckedFirst) {
  EXPECT_EQ(bad_input_of([] { HfConfig::load("/no/such"); }), "no such folder (/no/such)");
  EXPECT_EQ(bad_input_of([] { HfConfig::load("/dev/null"); }), "not a folder (/dev/null)");
  const TestFolder folder;
  EXPECT_EQ(bad_input_of([&] { HfConfig::load(folder.path()); }),
            str("config.json is missing (", folder.path(),
                "); a model is a folder as published on Hugging Face"));
  folder.write("config.json", R"({"model_type":"llama"})");
  EXPECT_EQ(HfConfig::load(folder.path()).architecture(), "LlamaForCausalLM");
  folder.write("config.json", "");
  EXPECT_EQ(bad_input_of([&] { HfConfig::load(folder.path()); }),
            str("the file is empty (", folder.path("config.json"), "); give a whole one"));
}

TEST(HfConfig, ArchitectureComesFromEitherKey) {
  EXPECT_EQ(parse(R"({"architectures":["MyModel"],"model_type":"llama"})").architecture(),
            "MyModel");
  EXPECT_EQ(parse(R"({"model_type":"gpt2"})").architecture(), "GPT2LMHeadModel");
  const auto read = [](const HfConfig& config) { config.architecture(); };
  EXPECT_EQ(error_of("{}", read), "architectures is missing (config.json)");
  EXPECT_EQ(error_of(R"({"model_type":"new"})", read),
            "architectures is missing, and the model_type \"new\" is not known (config.json)");
  EXPECT_EQ(error_of(R"({"architectures":"A"})", read),
            "architectures is \"A\" instead of a list (config.json)");
}

TEST(HfConfig, DtypeHasTwoSpellings) {
  EXPECT_EQ(parse(R"({"dtype":"bfloat16"})").dtype(), ir::DType::kBF16);
  EXPECT_EQ(parse(R"({"torch_dtype":"float16"})").dtype(), ir::DType::kF16);
  EXPECT_EQ(parse(R"({"torch_dtype":"torch.float32"})").dtype(), ir::DType::kF32);
  EXPECT_EQ(parse(R"({"torch_dtype":"float16","dtype":"float32"})").dtype(), ir::DType::kF32);
  EXPECT_EQ(parse(R"({"torch_dtype":null})").dtype(), std::nullopt);
  EXPECT_EQ(parse(R"({"dtype":"auto"})").dtype(), std::nullopt);
  EXPECT_EQ(error_of(R"({"dtype":"int3"})", [](const HfConfig& config) { config.dtype(); }),
            "dtype is \"int3\", which is not a known type (config.json)");
}

TEST(HfConfig, KnowsWhatNobodyRead) {
  const HfConfig config =
      parse(R"({"a":1,"b":null,"text_config":{"c":2,"d":{"e":3}},"other":{"f":4},"skip":{"g":5}})");
  config.get_int("a");
  config.object("text_config").object("d");
  config.ignore("skip");
  EXPECT_EQ(config.unread_keys(),
            (std::vector<std::string>{"b", "other", "text_config.c", "text_config.d.e"}));
  EXPECT_EQ(config.object("text_config").unread_keys(),
            (std::vector<std::string>{"text_config.c", "text_config.d.e"}));
  config.get_int("b", 1);
  config.object("text_config").ignore("d");
  EXPECT_EQ(config.unread_keys(), (std::vector<std::string>{"other", "text_config.c"}));
}

}  // namespace
}  // namespace millrace
