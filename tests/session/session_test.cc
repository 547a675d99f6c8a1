// Sessions over whole engines: tiny models whose tokens and logits transformers recorded.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <random>
#include <stdexcept>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "checkpoint/safetensors.h"
#include "millrace/generation_session.h"
#include "test_setup.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

// tests/data/models/README.md says what is in there.
class Golden {
 public:
  explicit Golden(const std::string& name)
      : folder_(source_folder() + "/tests/data/models/" + name),
        json_(parse_json_file(folder_ + "/golden.json")) {}

  std::shared_ptr<Engine> open(EngineOptions options = {}) const {
    options.device = test_device_name();
    options.dtype = options.kv_dtype = "fp32";
    options.threads = 2;
    options.dummy_weights = json_["seed"].get<uint64_t>();
    options.use_cache = false;
    return Engine::open(folder_, options);
  }
  std::shared_ptr<Engine> deterministic() const {
    EngineOptions options;
    options.deterministic = true;
    return open(options);
  }
  // Where a step holds 16 tokens, prompts come in pieces.
  std::shared_ptr<Engine> in_small_steps() const {
    EngineOptions options;
    options.max_num_tokens = 16;
    return open(options);
  }
  size_t size() const { return json_["prompts"].size(); }
  Ids input_ids(size_t prompt) const { return json_["prompts"][prompt]["input_ids"]; }
  Ids output_ids(size_t prompt) const { return json_["prompts"][prompt]["output_ids"]; }
  std::vector<int> prompt_rows(size_t prompt) const {
    return json_["prompts"][prompt]["prompt_rows"];
  }
  // How far a logit of the prompt may be off.
  double tolerance(size_t prompt) const {
    return json_["tolerance"].get<double>() *
           json_["prompts"][prompt]["largest_logit"].get<double>();
  }
  // [prompt_rows, V]
  std::vector<std::vector<float>> prompt_logits(size_t prompt) const {
    const MappedFile file = MappedFile::open(folder_ + "/golden.safetensors");
    std::vector<std::vector<float>> rows;
    for (const SafetensorsEntry& entry : parse_safetensors(file.bytes(), file.path()).entries) {
      if (entry.name != str("prompt_logits.", prompt)) continue;
      rows.assign(static_cast<size_t>(entry.shape[0]),
                  std::vector<float>(static_cast<size_t>(entry.shape[1])));
      for (size_t r = 0; r < rows.size(); ++r) {
        const size_t bytes = rows[r].size() * sizeof(float);
        std::memcpy(rows[r].data(), file.data() + entry.begin + r * bytes, bytes);
      }
    }
    return rows;
  }
  GenerationRequest request(size_t prompt) const {
    GenerationRequest r;
    r.input_ids = input_ids(prompt);
    r.sampling.max_new_tokens = static_cast<int>(output_ids(prompt).size());
    r.sampling.ignore_eos = json_["ignore_eos"].get<bool>();
    return r;
  }
  std::vector<GenerationRequest> requests() const {
    std::vector<GenerationRequest> all;
    for (size_t i = 0; i < size(); ++i)
      all.push_back(request(i));
    return all;
  }
  void expect_right(const std::vector<GenerationOutput>& outputs) const {
    ASSERT_EQ(outputs.size(), size());
    for (size_t i = 0; i < size(); ++i) {
      EXPECT_EQ(outputs[i].output_ids, output_ids(i)) << "prompt " << i;
      EXPECT_EQ(outputs[i].finish_reason, FinishReason::kLength);
    }
  }

 private:
  const std::string folder_;
  const Json json_;
};

constexpr SetupOptions kSetup = {
    .batch_size = 6, .max_context_length = 60, .max_new_tokens = 32, .max_logprobs = 3};

const Golden& llama() {
  static const Golden golden("llama_gqa");
  return golden;
}

std::shared_ptr<Engine> llama_engine() {
  static const std::shared_ptr<Engine> engine = llama().open();
  return engine;
}

std::unique_ptr<GenerationSession> session(std::shared_ptr<Engine> engine,
                                           const SetupOptions& options = kSetup) {
  auto made = std::make_unique<GenerationSession>(std::move(engine));
  made->setup(options);
  return made;
}

void expect_same(const std::vector<TokenScore>& a, const std::vector<TokenScore>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].id, b[i].id) << i;
    EXPECT_EQ(a[i].logprob, b[i].logprob) << i;
    EXPECT_EQ(a[i].top, b[i].top) << i;
  }
}

TEST(Session, EveryLayoutGivesTheReferencesTokens) {
  SetupOptions padded = kSetup, contiguous = kSetup, small_blocks = kSetup;
  padded.padded = true;
  contiguous.contiguous_kv_cache = true;
  small_blocks.tokens_per_block = 1;
  SetupOptions padded_contiguous = padded;
  padded_contiguous.contiguous_kv_cache = true;
  for (const auto& engine : {llama_engine(), llama().in_small_steps()}) {
    for (const SetupOptions& options :
         {kSetup, padded, contiguous, small_blocks, padded_contiguous}) {
      SCOPED_TRACE(str("padded ", options.padded, " contiguous ", options.contiguous_kv_cache,
                       " block ", options.tokens_per_block, " step ",
                       engine->info().max_num_tokens));
      llama().expect_right(session(engine, options)->decode(llama().requests()));
    }
  }
}

// Lengths from 1 to 60 in one batch, and each of them alone, to the last bit.
// Bit for bit: every stride-th of the requests, beside the others and alone.
void expect_same_alone(const std::shared_ptr<Engine>& engine, const SetupOptions& setup,
                       std::vector<GenerationRequest> requests, size_t stride) {
  for (GenerationRequest& request : requests)
    request.sampling.logprobs = 2;
  const auto together = session(engine, setup)->decode(requests);
  for (size_t i = 0; i < requests.size(); i += stride) {
    SCOPED_TRACE(str("request ", i));
    const auto alone = session(engine, setup)->decode({requests[i]});
    EXPECT_EQ(together[i].output_ids, alone[0].output_ids);
    EXPECT_EQ(std::ssize(together[i].output_ids), requests[i].sampling.max_new_tokens);
    expect_same(together[i].logprobs, alone[0].logprobs);
  }
}

TEST(Session, ABatchIsWhatItsSequencesAreAlone) {
  std::vector<GenerationRequest> requests = llama().requests();
  for (size_t i = 0; i < requests.size(); ++i)
    requests[i].sampling.max_new_tokens = static_cast<int>(3 + 5 * i);
  expect_same_alone(llama().deterministic(), kSetup, std::move(requests), 1);
}

// Heads of 64 and of 128, as fast kernels of a GPU take them, and more sequences than products of
// few rows take.
TEST(Session, ABatchInBf16IsWhatItsSequencesAreAlone) {
  constexpr int kRequests = 36, kLongest = 40, kMostNew = 10;
  EngineOptions options;
  options.device = test_device_name();
  options.dtype = options.kv_dtype = "bf16";
  options.threads = 2;
  options.use_cache = false;
  options.deterministic = true;
  std::vector<GenerationRequest> requests(kRequests);
  for (int i = 0; i < kRequests; ++i) {
    GenerationRequest& request = requests[static_cast<size_t>(i)];
    for (int t = 0; t <= 37 * i % kLongest; ++t)
      request.input_ids.push_back(3 + (101 * i + 17 * t) % 140);
    request.sampling.max_new_tokens = 3 + i % (kMostNew - 2);
    request.sampling.ignore_eos = true;
  }
  const SetupOptions setup = {.batch_size = kRequests,
                              .max_context_length = kLongest,
                              .max_new_tokens = kMostNew,
                              .max_logprobs = 2};
  expect_same_alone(Engine::open(source_folder() + "/models/novelist-draft", options), setup,
                    requests, 5);
  options.dummy_weights = 1;
  expect_same_alone(Engine::open(source_folder() + "/tests/data/models/qwen_defaults", options),
                    setup, requests, 5);
}

TEST(Session, StreamsGiveTheSameStepByStep) {
  const auto made = session(llama_engine());
  DecodeStream stream = made->decode_stream(llama().requests());
  std::vector<Ids> streamed(llama().size());
  std::vector<int> finished(llama().size(), 0);
  while (const auto tokens = stream.next()) {
    for (const StepToken& token : *tokens) {
      const auto i = static_cast<size_t>(token.sequence);
      EXPECT_EQ(finished[i], 0) << "a token after the end of " << i;
      streamed[i].push_back(token.id);
      EXPECT_EQ(stream.outputs()[i].output_ids, streamed[i]);
      finished[i] += token.finish_reason == FinishReason::kNone ? 0 : 1;
    }
  }
  EXPECT_FALSE(stream.next().has_value());
  llama().expect_right(stream.outputs());
  for (size_t i = 0; i < llama().size(); ++i) {
    EXPECT_EQ(streamed[i], llama().output_ids(i));
    EXPECT_EQ(finished[i], 1);
  }
  EXPECT_EQ(made->stats().step_times.size(), static_cast<size_t>(made->stats().steps));
}

TEST(Session, AStreamsCallerEndsSequences) {
  const auto made = session(llama_engine());
  DecodeStream stream = made->decode_stream(llama().requests());
  while (stream.next()) {
    for (size_t i = 0; i < llama().size(); i += 2) {
      if (stream.outputs()[i].output_ids.size() == i + 1) stream.finish(static_cast<int>(i));
    }
  }
  for (size_t i = 0; i < llama().size(); ++i) {
    Ids expected = llama().output_ids(i);
    if (i % 2 == 0) expected.resize(i + 1);
    EXPECT_EQ(stream.outputs()[i].output_ids, expected) << i;
    EXPECT_EQ(stream.outputs()[i].finish_reason,
              i % 2 == 0 ? FinishReason::kStop : FinishReason::kLength);
  }
}

TEST(Session, AbandonedStreamsLeaveItUsable) {
  const auto made = session(llama_engine());
  for (int steps = 0; steps < 6; ++steps) {
    DecodeStream stream = made->decode_stream(llama().requests());
    for (int i = 0; i < steps; ++i)
      stream.next();
    llama().expect_right(made->decode(llama().requests()));
  }
}

// A prompt served before is not computed again, nor is an answer that is fed back; what follows is
// as in a new session. Exactly for prompts; other kernels than those of a prompt computed an
// answer.
TEST(Session, ReusedPrefixesChangeNothing) {
  const auto engine = llama().deterministic();
  const auto used = session(engine);
  used->decode(llama().requests());
  GenerationRequest turn = llama().request(5);
  turn.sampling.max_new_tokens = 20;
  turn.sampling.logprobs = 3;
  turn.input_ids.resize(50);
  turn.input_ids.push_back(5);
  const GenerationOutput prompt = used->decode({turn})[0];
  const GenerationOutput fresh_prompt = session(engine)->decode({turn})[0];
  EXPECT_EQ(fresh_prompt.reused_tokens, 0);
  EXPECT_EQ(prompt.reused_tokens, 50);
  EXPECT_EQ(prompt.output_ids, fresh_prompt.output_ids);
  expect_same(prompt.logprobs, fresh_prompt.logprobs);

  turn.input_ids = llama().input_ids(3);  // 17 tokens
  const Ids answer = llama().output_ids(3);
  turn.input_ids.insert(turn.input_ids.end(), answer.begin(), answer.end());
  turn.input_ids.push_back(5);
  const GenerationOutput reused = used->decode({turn})[0];
  const GenerationOutput fresh = session(engine)->decode({turn})[0];
  EXPECT_EQ(reused.reused_tokens, 17 + 32 - 1);  // the last new token was never fed back
  EXPECT_EQ(reused.output_ids, fresh.output_ids);
  ASSERT_EQ(reused.logprobs.size(), fresh.logprobs.size());
  for (size_t i = 0; i < fresh.logprobs.size(); ++i)
    EXPECT_NEAR(reused.logprobs[i].logprob, fresh.logprobs[i].logprob, 1e-4);
}

// Keys of a long prompt are turned by other frequencies than those of a short one with these rules.
TEST(Session, PromptsOfOtherFrequenciesAreComputedAnew) {
  for (const char* name : {"llama_dynamic", "llama_dynamic_new", "llama_longrope"}) {
    SCOPED_TRACE(name);
    const Golden golden(name);
    const auto engine = golden.deterministic();
    const auto used = session(engine);
    golden.expect_right(used->decode(golden.requests()));
    const Ids text = golden.input_ids(5);
    // 60 tokens are long for each of them, 20 are short.
    for (const int length : {60, 20, 58, 21, 60}) {
      GenerationRequest request;
      request.input_ids.assign(text.begin(), text.begin() + length);
      request.sampling.max_new_tokens = 4;
      request.sampling.ignore_eos = true;
      request.sampling.logprobs = 3;
      // All slots, so that the next ones find no other prompt.
      const auto outputs = used->decode(std::vector<GenerationRequest>(6, request));
      const GenerationOutput fresh = session(engine)->decode({request})[0];
      for (const GenerationOutput& output : outputs) {
        EXPECT_EQ(output.output_ids, fresh.output_ids) << length;
        expect_same(output.logprobs, fresh.logprobs);
      }
    }
  }
}

double log_sum_exp(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits)
    sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

TEST(Session, PromptsAreScoredWithoutNewTokens) {
  // 60 prompt tokens in pieces of 16, beside a sequence that generates.
  const auto made = session(llama().in_small_steps());
  for (const bool alone : {true, false}) {
    std::vector<GenerationRequest> requests = llama().requests();
    for (size_t i = 0; i < requests.size(); ++i) {
      if (i == 2 && !alone) continue;
      requests[i].sampling.max_new_tokens = 0;
      requests[i].sampling.prompt_logprobs = 2;
    }
    const auto outputs = made->decode(requests);
    if (!alone) {
      EXPECT_EQ(outputs[2].output_ids, llama().output_ids(2));
      EXPECT_TRUE(outputs[2].prompt_logprobs.empty());
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      if (i == 2 && !alone) continue;
      SCOPED_TRACE(str("prompt ", i));
      const Ids ids = llama().input_ids(i);
      EXPECT_TRUE(outputs[i].output_ids.empty());
      EXPECT_EQ(outputs[i].finish_reason, FinishReason::kLength);
      ASSERT_EQ(outputs[i].prompt_logprobs.size(), ids.size() - 1);
      const auto rows = llama().prompt_rows(i);
      const auto logits = llama().prompt_logits(i);
      ASSERT_EQ(logits.size(), rows.size());
      for (size_t r = 0; r < rows.size(); ++r) {
        const auto row = static_cast<size_t>(rows[r]);
        if (row + 1 == ids.size()) continue;
        const TokenScore& score = outputs[i].prompt_logprobs[row];
        const double total = log_sum_exp(logits[r]);
        const auto logprob = [&](int32_t id) {
          return static_cast<double>(logits[r][static_cast<size_t>(id)]) - total;
        };
        EXPECT_EQ(score.id, ids[row + 1]);
        EXPECT_NEAR(score.logprob, logprob(score.id), 2 * llama().tolerance(i)) << row;
        ASSERT_EQ(score.top.size(), 2U);
        const auto best = std::max_element(logits[r].begin(), logits[r].end());
        EXPECT_EQ(score.top[0].first, best - logits[r].begin());
        EXPECT_GE(score.top[0].second, score.top[1].second);
        for (const auto& [id, value] : score.top)
          EXPECT_NEAR(value, logprob(id), 2 * llama().tolerance(i));
      }
    }
  }
}

// What follows the last prompt token of each request, from a session that has served nothing else.
class PromptInPieces {
 public:
  PromptInPieces(const std::shared_ptr<Engine>& engine, const Ids& ids)
      : session_(session(engine, {.batch_size = 1, .max_context_length = 60, .max_new_tokens = 8})),
        ids_(ids) {}

  /// The prompt up to `end`, all of it new but what an earlier call had computed. Logits of its
  /// last token [V]; `tokens` new ones are chosen after it.
  std::vector<float> add(int end, int tokens = 1) {
    GenerationRequest request;
    request.input_ids.assign(ids_.begin(), ids_.begin() + end);
    request.sampling.max_new_tokens = tokens;
    request.sampling.ignore_eos = true;
    std::vector<float> last;
    DecodeOptions options;
    options.logits = [&](int, int position, int, std::span<const float> logits) {
      if (position == end - 1) last.assign(logits.begin(), logits.end());
    };
    output_ = session_->decode({request}, options)[0];
    EXPECT_EQ(output_.reused_tokens, computed_);
    computed_ = end;
    return last;
  }
  const GenerationOutput& output() const { return output_; }

 private:
  const std::unique_ptr<GenerationSession> session_;
  const Ids ids_;
  int computed_ = 0;
  GenerationOutput output_;
};

/// Logits of every prompt token when nothing was computed before, [T, V].
std::vector<std::vector<float>> whole_prompts(const std::shared_ptr<Engine>& engine,
                                              const Ids& ids) {
  std::vector<std::vector<float>> rows;
  for (int end = 1; end <= static_cast<int>(ids.size()); ++end)
    rows.push_back(PromptInPieces(engine, ids).add(end));
  return rows;
}

TEST(Session, PromptsOfTenTokensInAllPieces) {
  for (const char* name : {"llama_gqa", "deepseek_v3"}) {
    const Golden golden(name);
    const auto engine = golden.deterministic();
    Ids ids = golden.input_ids(3);
    ids.resize(10);
    const auto whole = whole_prompts(engine, ids);
    for (unsigned cuts = 0; cuts < 512; ++cuts) {
      PromptInPieces prompt(engine, ids);
      for (int end = 1; end <= 10; ++end) {
        if (end < 10 && (cuts >> (end - 1) & 1) == 0) continue;
        ASSERT_EQ(prompt.add(end), whole[static_cast<size_t>(end - 1)])
            << name << ", " << cuts << " at " << end;
      }
    }
  }
}

TEST(Session, PromptsOfSixtyTokensInRandomPieces) {
  for (const char* name : {"llama_gqa", "mistral_window", "deepseek_v2"}) {
    const Golden golden(name);
    const auto engine = golden.deterministic(), fast = golden.open();
    const Ids ids = golden.input_ids(5), answer = golden.output_ids(5);
    ASSERT_EQ(ids.size(), 60U);
    const auto whole = whole_prompts(engine, ids);
    std::mt19937 random(7);
    for (int round = 0; round < 100; ++round) {
      PromptInPieces exact(engine, ids), quick(fast, ids);
      const auto cuts = random() % 16;  // on average
      for (int end = 1; end <= 60; ++end) {
        if (end < 60 && random() % 60 >= cuts) continue;
        ASSERT_EQ(exact.add(end), whole[static_cast<size_t>(end - 1)]) << round << " at " << end;
        quick.add(end, end == 60 ? 8 : 1);
      }
      ASSERT_EQ(quick.output().output_ids, Ids(answer.begin(), answer.begin() + 8)) << round;
    }
  }
}

// A step that fails ends its decode, and nothing of it is used again.
TEST(Session, FailedStepsLeaveItUsable) {
  const auto engine = llama_engine();
  const auto made = session(engine);
  for (int step = 0; step < 6; ++step) {
    SCOPED_TRACE(str("step ", step));
    int calls = 0;
    const auto fail = [&](int, int, int, std::span<const float>) {
      // Once for each of 6 sequences and step.
      if (calls++ == 6 * step + 2) throw std::runtime_error("the caller's own");
    };
    EXPECT_THROW(made->decode(llama().requests(), {.logits = fail}), std::runtime_error);
    llama().expect_right(made->decode(llama().requests()));
  }
  GenerationRequest none = llama().request(3);
  none.sampling.suppress_tokens.resize(static_cast<size_t>(engine->info().vocab_size));
  std::iota(none.sampling.suppress_tokens.begin(), none.sampling.suppress_tokens.end(), 0);
  for (int round = 0; round < 2; ++round) {
    DecodeStream stream = made->decode_stream({llama().request(4), none});
    EXPECT_THROW(stream.next(), Error);
    EXPECT_FALSE(stream.next().has_value());
    llama().expect_right(made->decode(llama().requests()));
  }
}

TEST(Session, BadRequestsAndSetupsAreErrors) {
  const auto made = session(llama_engine());
  GenerationRequest outside = llama().request(2), longer = llama().request(5);
  outside.input_ids[1] = 160;
  longer.input_ids.push_back(1);
  for (const GenerationRequest& bad : {outside, longer, GenerationRequest{}}) {
    EXPECT_THROW(made->decode({llama().request(0), bad}), Error);
    llama().expect_right(made->decode(llama().requests()));
  }
  for (const SetupOptions& bad :
       {SetupOptions{.batch_size = 0, .max_context_length = 8},
        SetupOptions{.max_context_length = 100, .max_new_tokens = 29},
        SetupOptions{.batch_size = 257, .max_context_length = 8},
        SetupOptions{.max_context_length = 8, .beam_width = 2},
        SetupOptions{.max_context_length = 8, .tokens_per_block = 48},
        SetupOptions{.max_context_length = 60, .max_new_tokens = 32, .kv_memory = 1000}}) {
    EXPECT_THROW(made->setup(bad), Error);
  }
  made->setup(kSetup);
  llama().expect_right(made->decode(llama().requests()));
}

TEST(Session, AllocatesInSetupAlone) {
  SetupOptions options = kSetup;
  options.tokens_per_block = 8;
  const auto made = session(llama_engine(), options);
  const SessionStats before = made->stats();
  // Blocks of 8 for 92 tokens; 2 layers of 2 heads with K and V of 8 floats.
  EXPECT_EQ(before.kv_blocks, 6 * 12);
  EXPECT_EQ(before.kv_pool, int64_t{6} * 12 * 8 * 2 * 2 * (8 + 8) * 4);
  EXPECT_EQ(before.token_history, 6 * 92 * 4);
  for (int round = 0; round < 5; ++round)
    made->decode(llama().requests());
  const SessionStats after = made->stats();
  EXPECT_EQ(after.activations, before.activations);
  EXPECT_EQ(after.kv_pool, before.kv_pool);
  EXPECT_EQ(after.step_buffers, before.step_buffers);
  EXPECT_EQ(after.sampler, before.sampler);
  EXPECT_LE(after.kv_blocks_used_peak, after.kv_blocks);
  // At least what the six sequences hold at their ends.
  int64_t held = 0;
  for (const GenerationRequest& r : llama().requests())
    held += (static_cast<int64_t>(r.input_ids.size()) + 31 + 7) / 8;
  EXPECT_GE(after.kv_blocks_used_peak, held);
}

// Weights are read in place: a file that is cut short meanwhile is an error, as often as one asks.
TEST(Session, WeightsThatVanishAreErrors) {
  const fs::path source = fs::path(source_folder()) / "models/novelist-draft";
  const fs::path folder = fs::path(::testing::TempDir()) / str("session_", getpid());
  fs::remove_all(folder);
  fs::copy(source, folder);
  {
    EngineOptions options;
    options.device = "cpu";  // a GPU has a copy
    options.use_cache = false;
    const auto made = session(Engine::open(folder.string(), options),
                              {.max_context_length = 8, .max_new_tokens = 8});
    GenerationRequest request;
    request.input_ids = {1, 300, 301};
    request.sampling.max_new_tokens = 4;
    ASSERT_GT(made->stats().weights_mapped, 0);
    EXPECT_EQ(made->decode({request})[0].output_ids.size(), 4U);
    fs::resize_file(folder / "model.safetensors", 8192);
    for (int round = 0; round < 3; ++round)
      EXPECT_THROW(made->decode({request}), Error);
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace millrace
