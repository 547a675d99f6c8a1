// Beams, callbacks and virtual tokens through the public API, on tiny models that transformers ran.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/str.h"
#include "millrace/generation_session.h"
#include "test_setup.h"

namespace millrace {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

const std::string kModels = source_folder() + "/tests/data/models/";

Json read_json(const std::string& path) {
  return parse_json_file(kModels + path);
}

std::shared_ptr<Engine> open(const std::string& model, int beams = 1, int prompt_table_rows = 0) {
  EngineOptions options;
  options.max_beam_width = beams;
  options.max_prompt_table_rows = prompt_table_rows;
  options.device = test_device_name();
  options.dtype = options.kv_dtype = "fp32";
  options.threads = 2;
  options.dummy_weights = read_json(model + "/golden.json")["seed"].get<uint64_t>();
  options.use_cache = false;
  return Engine::open(kModels + model, options);
}

std::shared_ptr<Engine> beam_engine() {
  static const std::shared_ptr<Engine> engine = open("llama_gqa", 8);
  return engine;
}

constexpr SetupOptions kSetup = {.batch_size = 3, .max_context_length = 60, .max_new_tokens = 32};

GenerationRequest golden_request(size_t prompt) {
  const Json golden = read_json("llama_gqa/golden.json")["prompts"][prompt];
  GenerationRequest request{.input_ids = golden["input_ids"], .sampling = {}};
  request.sampling.max_new_tokens = 32;
  request.sampling.ignore_eos = true;
  return request;
}
Ids golden_ids(size_t prompt) {
  return read_json("llama_gqa/golden.json")["prompts"][prompt]["output_ids"];
}

// Entry 1: 4 beams, 4 sequences, no end tokens.
class BeamSession : public ::testing::Test {
 protected:
  std::vector<GenerationRequest> requests() const {
    std::vector<GenerationRequest> all;
    for (const Json& prompt : entry_["prompts"]) {
      GenerationRequest request{.input_ids = prompt["input_ids"], .sampling = {}};
      request.sampling.max_new_tokens = 20;
      request.sampling.ignore_eos = true;
      request.sampling.num_beams = request.sampling.num_return_sequences = 4;
      all.push_back(request);
    }
    return all;
  }
  void expect_right(const std::vector<GenerationOutput>& outputs) const {
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Json& wanted = entry_["prompts"][i]["outputs"];
      ASSERT_EQ(outputs[i].beams.size(), wanted.size());
      for (size_t b = 0; b < wanted.size(); ++b) {
        EXPECT_EQ(outputs[i].beams[b].output_ids, wanted[b]["output_ids"].get<Ids>()) << b;
        EXPECT_NEAR(outputs[i].beams[b].score, wanted[b]["score"].get<double>(), 1e-4);
      }
      EXPECT_EQ(outputs[i].output_ids, outputs[i].beams[0].output_ids);
    }
  }
  SetupOptions setup() const {
    SetupOptions options = kSetup;
    options.beam_width = 4;
    options.tokens_per_block = 4;
    return options;
  }

  Json entry_ = read_json("llama_gqa/beams.json")["entries"][1];
};

TEST_F(BeamSession, FindsTheReferencesAgainAndAgain) {
  GenerationSession session(beam_engine());
  session.setup(setup());
  for (int round = 0; round < 3; ++round) {
    expect_right(session.decode(requests()));
    DecodeStream abandoned = session.decode_stream(requests());
    for (int step = 0; step < 4 * round; ++step)
      abandoned.next();
  }
  EXPECT_TRUE(session.decode(requests())[0].reused_tokens > 0) << "the prompt is kept";
}

TEST_F(BeamSession, SharesThePrompt) {
  GenerationSession session(beam_engine());
  SetupOptions options = setup();
  options.batch_size = 1;
  session.setup(options);
  const auto request = requests()[1];
  session.decode({request});
  // 23 prompt tokens and 19 stored new ones in blocks of 4: 5 shared, 6 of each beam.
  ASSERT_EQ(request.input_ids.size(), 23u);
  EXPECT_EQ(session.stats().kv_blocks_used_peak, 5 + 4 * 6);
  EXPECT_LT(session.stats().kv_blocks_used_peak, 4 * 11) << "full copies";
}

TEST_F(BeamSession, OneBeamIsGreedy) {
  GenerationSession session(beam_engine());
  session.setup(kSetup);
  EXPECT_EQ(session.decode({golden_request(2)})[0].output_ids, golden_ids(2));
  EXPECT_TRUE(session.decode({golden_request(2)})[0].beams.empty());
}

TEST_F(BeamSession, AStreamGivesTheBestAtTheEnd) {
  GenerationSession session(beam_engine());
  session.setup(setup());
  DecodeStream stream = session.decode_stream({requests()[0]});
  Ids streamed;
  while (const auto added = stream.next()) {
    for (const StepToken& token : *added) {
      streamed.push_back(token.id);
      EXPECT_EQ(token.finish_reason == FinishReason::kLength, streamed.size() == 20);
    }
  }
  EXPECT_EQ(streamed, stream.outputs()[0].output_ids);
}

TEST_F(BeamSession, ALogitsProcessorSeesEachBeamsHistory) {
  GenerationSession session(beam_engine());
  session.setup(setup());
  const GenerationRequest request = requests()[0];
  std::vector<Ids> seen;
  DecodeOptions options;
  options.logits_processor = [&](HookStep step, std::span<const int32_t> ids,
                                 std::span<float> log_probs) {
    EXPECT_EQ(ids.size(), request.input_ids.size() + static_cast<size_t>(step.new_tokens));
    double sum = 0;
    for (const float x : log_probs)
      sum += std::exp(x);
    EXPECT_NEAR(sum, 1, 1e-4);
    seen.emplace_back(ids.begin(), ids.end());
  };
  expect_right(session.decode({request}, options));
  EXPECT_EQ(seen.size(), 1u + 19 * 4) << "the prompt once, then four beams";
  const Json best = entry_["prompts"][0]["outputs"][0]["output_ids"];
  Ids history = request.input_ids;
  for (size_t i = 0; i + 1 < best.size(); ++i)
    history.push_back(best[i]);
  EXPECT_NE(std::find(seen.begin(), seen.end(), history), seen.end());
}

TEST_F(BeamSession, WhatCannotBeIsRefused) {
  GenerationSession session(beam_engine());
  SetupOptions wide = setup();
  wide.beam_width = 9;
  EXPECT_THROW(session.setup(wide), Error);
  session.setup(setup());
  auto other = requests();
  other[1].sampling.num_beams = 3;
  other[1].sampling.num_return_sequences = 1;
  EXPECT_THROW(session.decode(other), Error);
  for (const auto& spoil : std::vector<std::function<void(SamplingParams&)>>{
           [](SamplingParams& p) { p.do_sample = true; }, [](SamplingParams& p) { p.logprobs = 1; },
           [](SamplingParams& p) { p.stop = {"x"}; },
           [](SamplingParams& p) { p.num_return_sequences = 5; },
           [](SamplingParams& p) { p.length_penalty = NAN; }}) {
    auto bad = requests();
    spoil(bad[0].sampling);
    EXPECT_THROW(session.decode(bad), Error);
  }
  DecodeOptions stopping;
  stopping.stopping_criteria = [](HookStep, std::span<const int32_t>) { return false; };
  EXPECT_THROW(session.decode(requests(), stopping), Error);
  expect_right(session.decode(requests()));
}

std::shared_ptr<Engine> plain_engine() {
  static const std::shared_ptr<Engine> engine = open("llama_gqa");
  return engine;
}

TEST(Hooks, ALogitsProcessorChooses) {
  GenerationSession session(plain_engine());
  session.setup(kSetup);
  DecodeOptions options;
  std::vector<HookStep> steps;
  // Of request 1, whatever the model says: the token after the last one.
  options.logits_processor = [&](HookStep step, std::span<const int32_t> ids,
                                 std::span<float> logits) {
    steps.push_back(step);
    if (step.sequence != 1) return;
    std::fill(logits.begin(), logits.end(), -1000.0F);
    logits[static_cast<size_t>(ids.back() + 1) % logits.size()] = 0;
  };
  auto requests = {golden_request(3), golden_request(2)};
  const auto outputs = session.decode(requests, options);
  EXPECT_EQ(outputs[0].output_ids, golden_ids(3));
  int32_t token = golden_request(2).input_ids.back();
  const int vocab = static_cast<int>(plain_engine()->info().vocab_size);
  for (const int32_t id : outputs[1].output_ids) {
    token = (token + 1) % vocab;
    EXPECT_EQ(id, token);
  }
  EXPECT_EQ(steps.size(), 64u);
  EXPECT_EQ(steps.back().new_tokens, 31);
  EXPECT_TRUE(session.stats().waits_for_host);
  session.decode(requests);
  EXPECT_FALSE(session.stats().waits_for_host);
}

// What an own processor does is what the built-in one does.
TEST(Hooks, ALogitsProcessorIsTheLastOne) {
  GenerationSession session(plain_engine());
  session.setup(kSetup);
  GenerationRequest request = golden_request(4);
  DecodeOptions options;
  options.logits_processor = [](HookStep, std::span<const int32_t>, std::span<float> logits) {
    for (const size_t token : {size_t{3}, size_t{50}, size_t{90}})
      logits[token] = -INFINITY;
  };
  request.sampling.repetition_penalty = 1.4;
  const Ids by_hook = session.decode({request}, options)[0].output_ids;
  request.sampling.suppress_tokens = {3, 50, 90};
  EXPECT_EQ(session.decode({request})[0].output_ids, by_hook);
}

TEST(Hooks, StoppingCriteriaEndSequences) {
  GenerationSession session(plain_engine());
  session.setup(kSetup);
  DecodeOptions options;
  options.stopping_criteria = [](HookStep step, std::span<const int32_t> ids) {
    EXPECT_EQ(ids[ids.size() - static_cast<size_t>(step.new_tokens)],
              golden_ids(step.sequence == 0 ? 3 : 2)[0]);
    return step.sequence == 1 && step.new_tokens == 7;
  };
  const auto outputs = session.decode({golden_request(3), golden_request(2)}, options);
  EXPECT_EQ(outputs[0].output_ids, golden_ids(3));
  EXPECT_EQ(outputs[0].finish_reason, FinishReason::kLength);
  const Ids whole = golden_ids(2);
  EXPECT_EQ(outputs[1].output_ids, Ids(whole.begin(), whole.begin() + 7));
  EXPECT_EQ(outputs[1].finish_reason, FinishReason::kStop);
}

TEST(Hooks, CallbacksThatThrowLeaveItUsable) {
  GenerationSession session(plain_engine());
  session.setup(kSetup);
  for (int step = 0; step < 4; ++step) {
    int calls = 0;
    const auto fail = [&] {
      if (calls++ == step) throw std::runtime_error("the caller's own");
    };
    DecodeOptions processing, stopping;
    processing.logits_processor = [&](HookStep, std::span<const int32_t>, std::span<float>) {
      fail();
    };
    stopping.stopping_criteria = [&](HookStep, std::span<const int32_t>) {
      fail();
      return false;
    };
    EXPECT_THROW(session.decode({golden_request(3)}, processing), std::runtime_error);
    calls = 0;
    EXPECT_THROW(session.decode({golden_request(3)}, stopping), std::runtime_error);
    EXPECT_EQ(session.decode({golden_request(3)})[0].output_ids, golden_ids(3));
  }
}

TEST(PromptTables, AreTransformersInputEmbeddings) {
  const Json prompts = read_json("prompt_tables.json")["prompts"];
  for (const char* model : {"llama_gqa", "gpt2"}) {
    SCOPED_TRACE(model);
    const auto engine = open(model, 1, 6);
    GenerationSession session(engine);
    session.setup(kSetup);
    std::vector<GenerationRequest> requests;
    std::vector<Ids> wanted;
    for (const Json& prompt : prompts) {
      if (prompt["model"] != model) continue;
      GenerationRequest request{.input_ids = prompt["input_ids"], .sampling = {}};
      for (const Json& row : prompt["prompt_table"]) {
        for (const Json& x : row)
          request.prompt_table.push_back(x);
      }
      request.sampling.max_new_tokens = 12;
      request.sampling.ignore_eos = true;
      requests.push_back(request);
      wanted.push_back(prompt["output_ids"]);
    }
    ASSERT_EQ(requests.size(), 3u);
    for (int round = 0; round < 2; ++round) {
      const auto outputs = session.decode(requests);
      for (size_t i = 0; i < wanted.size(); ++i)
        EXPECT_EQ(outputs[i].output_ids, wanted[i]) << i;
    }
    // In another slot, behind another request's table.
    EXPECT_EQ(session.decode({requests[2], requests[0]})[1].output_ids, wanted[0]);
    // The table is what is read.
    GenerationRequest other = requests[0];
    std::reverse(other.prompt_table.begin(), other.prompt_table.end());
    EXPECT_NE(session.decode({other})[0].output_ids, wanted[0]);
  }
}

TEST(PromptTables, WhatCannotBeIsRefused) {
  const auto message = [](const std::shared_ptr<Engine>& engine, const GenerationRequest& request) {
    GenerationSession session(engine);
    session.setup(kSetup);
    try {
      session.decode({request});
      return std::string("accepted");
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  const auto vocab = static_cast<int32_t>(plain_engine()->info().vocab_size);
  GenerationRequest request{.input_ids = {vocab, 5}, .sampling = {}};
  request.sampling.max_new_tokens = 2;
  EXPECT_EQ(message(plain_engine(), request),
            str("token id ", vocab, " is not in the vocabulary of ", vocab,
                "; use ids of this model's tokenizer"));
  request.prompt_table.assign(48, 0.5F);
  EXPECT_EQ(message(plain_engine(), request),
            "the engine was built without virtual tokens; build it with max_prompt_table_rows");
  const auto engine = open("llama_gqa", 1, 2);
  request.prompt_table.assign(49, 0.5F);
  EXPECT_EQ(message(engine, request).substr(0, 32), "the prompt table has 49 numbers;");
}

}  // namespace
}  // namespace millrace
