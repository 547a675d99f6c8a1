// Chat templates against transformers (tests/data/text-goldens/make_template_goldens.py) and
// against the renderings of real models' templates in tests/data/chat-templates.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <set>

#include <gtest/gtest.h>

#include "base/json.h"
#include "millrace/error.h"
#include "millrace/text.h"
#include "text/golden_file.h"

namespace millrace {
namespace {

constexpr int64_t kNow = 1752150896;  // 2025-07-10 12:34:56 UTC

/// The novelist's tokenizer with another template.
Tokenizer with_config(const Json& config) {
  std::vector<TextAsset> assets =
      Tokenizer::collect_assets(std::string(MILLRACE_SOURCE_DIR) + "/models/novelist-14m");
  std::erase_if(assets, [](const TextAsset& a) { return a.name == "special_tokens_map.json"; });
  for (TextAsset& asset : assets) {
    if (asset.name == "tokenizer_config.json") asset.bytes = json_line(config);
  }
  return Tokenizer::open(assets, "folder");
}

Tokenizer with_template(const Json& chat_template) {
  return with_config({{"chat_template", chat_template}});
}

class ChatTemplate : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    setenv("TZ", "UTC", 1);
    tzset();
  }
};

std::string error_of(const std::string& chat_template, const ChatRequest& request) {
  try {
    return "no error, but: " + with_template(chat_template).render_chat(request);
  } catch (const Error& error) {
    return error.what();
  }
}

TEST_F(ChatTemplate, SmallTemplatesRenderAsInTransformers) {
  const Json golden = read_golden("text-goldens/template_goldens.json");
  ChatRequest request;
  request.messages_json = json_line(golden.at("messages"));
  request.tools_json = json_line(golden.at("tools"));
  Json variables = golden.at("variables");
  variables["bos_token"] = "<s>";
  variables["eos_token"] = "</s>";
  request.variables_json = json_line(variables);
  request.now = golden.at("now").get<int64_t>();
  for (const Json& test : golden.at("cases")) {
    const std::string source = test.at("template");
    SCOPED_TRACE(source);
    if (test.contains("error")) {
      EXPECT_THROW((void)with_template(source).render_chat(request), Error);
      continue;
    }
    try {
      EXPECT_EQ(with_template(source).render_chat(request), test.at("text").get<std::string>());
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

/// Renders as the JavaScript engine does that the pairs come from: nothing is defined that the data
/// does not define.
ChatRequest pair_request(Json data) {
  ChatRequest request;
  request.messages_json = json_line(data.at("messages"));
  if (data.contains("tools")) request.tools_json = json_line(data.at("tools"));
  request.add_generation_prompt.reset();
  if (data.contains("add_generation_prompt")) {
    request.add_generation_prompt = data.at("add_generation_prompt").get<bool>();
  }
  for (const char* key : {"messages", "tools", "add_generation_prompt"})
    data.erase(key);
  request.variables_json = json_line(data);
  request.now = kNow;
  return request;
}

/// The pair without data checks a formatter of templates: template and target must render the same.
const Json kFormatterData = {
    {"messages",
     {{{"role", "user"},
       {"content", {{{"type", "image"}}, {{"type", "text"}, {"text", "What is this?"}}}}},
      {{"role", "assistant"}, {"content", {{{"type", "text"}, {"text", "A cat."}}}}}}},
    {"add_generation_prompt", true}};

TEST_F(ChatTemplate, PairsRenderExactly) {
  const Json pairs = read_golden("chat-templates/chat_template_pairs.json");
  ASSERT_EQ(pairs.size(), 54);
  for (const Json& pair : pairs) {
    SCOPED_TRACE(pair.at("name").get<std::string>());
    const std::string source = pair.at("chat_template");
    std::string target = pair.at("target");
    ChatRequest request = pair_request(pair.value("data", kFormatterData));
    request.python_containers = false;
    if (!pair.contains("data")) target = with_template(target).render_chat(request);
    try {
      EXPECT_EQ(with_template(source).render_chat(request), target);
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

// The same pairs as transformers renders them, by default; it differs in three.
TEST_F(ChatTemplate, PairsRenderAsInTransformers) {
  const Json pairs = read_golden("chat-templates/chat_template_pairs.json");
  const Json different = read_golden("text-goldens/template_goldens.json").at("pairs");
  EXPECT_EQ(different.size(), 3);
  for (const Json& pair : pairs) {
    SCOPED_TRACE(pair.at("name").get<std::string>());
    const std::string expected =
        different.value(pair.at("name").get<std::string>(), pair.at("target").get<std::string>());
    ChatRequest request = pair_request(pair.value("data", kFormatterData));
    if (!request.add_generation_prompt) request.add_generation_prompt = false;
    EXPECT_EQ(with_template(pair.at("chat_template")).render_chat(request), expected);
  }
}

TEST_F(ChatTemplate, ErrorsSayWhatAndWhere) {
  ChatRequest request;
  request.messages_json = R"([{"role": "user", "content": "x"}])";
  EXPECT_EQ(error_of("{{ raise_exception('roles must\nalternate') }}", request),
            "roles must alternate (folder/tokenizer_config.json); check the messages against what "
            "the chat template expects");
  EXPECT_NE(error_of("a\n{% if %}", request).find("line 2"), std::string::npos);
  EXPECT_NE(error_of("{{ messages[0].content.nope() }}", request).find("nope"), std::string::npos);
  request.messages_json = "[{]";
  EXPECT_NE(error_of("x", request).find("messages: not valid JSON"), std::string::npos);
  request.messages_json = "[1]";
  EXPECT_NE(error_of("x", request).find("messages must be a list of objects"), std::string::npos);
}

// What docs/text.md lists as missing must not come out wrong.
TEST_F(ChatTemplate, WhatIsMissingIsAnError) {
  ChatRequest request;
  request.messages_json = "[]";
  EXPECT_THROW((void)with_template("{{ '%s' % 1 }}").render_chat(request), Error);
  EXPECT_THROW((void)with_template("{{ 'x'.casefold() }}").render_chat(request), Error);
}

TEST_F(ChatTemplate, HostileTemplatesEndWithAnError) {
  ChatRequest request;
  request.messages_json = "[]";
  for (const std::string source : {
           "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
           "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
           "{{ 'x' * 10000000000 }}",
           "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}"
           "{% endfor %}{{ n.s | length }}",
           "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}"
           "{% endfor %}{{ n.l | tojson }}",
           "{{ range(100000) | list | tojson(separators=['x' * 100000, ':']) }}",
           "{{ ('{:>999999999}').format('x') }}",
           "{{ '%999999999d' | format(1) }}",
           "{{ 'x'.center(999999999) | length }}{{ 1 / 0 }}",
       }) {
    SCOPED_TRACE(source);
    EXPECT_THROW((void)with_template(source).render_chat(request), Error);
  }
  std::string deep;
  for (int i = 0; i < 100000; ++i)
    deep += "(";
  EXPECT_THROW((void)with_template("{{ " + deep + "1 }}").render_chat(request), Error);
  std::string nested = "1";
  for (int i = 0; i < 2000; ++i)
    nested = "[" + nested + "]";
  EXPECT_THROW((void)with_template("{{ " + nested + " }}").render_chat(request), Error);
  request.messages_json = "[{\"role\": \"user\", \"content\": " + nested + "}]";
  EXPECT_THROW((void)with_template("{{ messages }}").render_chat(request), Error);
}

}  // namespace
}  // namespace millrace
