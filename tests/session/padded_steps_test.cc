// Steps as a GPU runs them: launched ahead, and with rows that belong to no sequence, so that one
// captured step serves several sizes of a batch. On a CPU that behaves like a GPU towards its
// callers; the tokens are those that transformers recorded.
#include <fstream>
#include <regex>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "forwarding_device.h"
#include "millrace/engine.h"
#include "test_setup.h"

namespace millrace {
namespace {

using Json = nlohmann::json;

/// Capturing runs the work; the replay that follows it does nothing. So a step may be captured and
/// replayed once.
class GpuLike : public ForwardingDevice {
 public:
  bool is_asynchronous() const override { return true; }
  std::unique_ptr<device::CapturedGraph> capture(FunctionRef<void()> work) override {
    work();
    return std::make_unique<HasRun>();
  }

 private:
  class HasRun : public device::CapturedGraph {
   public:
    void replay() override { EXPECT_EQ(++replays_, 1); }

   private:
    int replays_ = 0;
  };
};

/// Where kernels fail once `fails` is set, which is told when the host waits.
class FailingDevice : public GpuLike {
 public:
  std::unique_ptr<device::Event> make_event() override {
    return std::make_unique<FailingEvent>(GpuLike::make_event(), fails);
  }

  bool fails = false;

 private:
  class FailingEvent : public device::Event {
   public:
    FailingEvent(std::unique_ptr<device::Event> event, const bool& fails)
        : event_(std::move(event)), fails_(fails) {}
    void record() override { event_->record(); }
    void wait() override {
      if (fails_) throw_failed("a kernel failed", "", "ask for its name");
    }
    double seconds_since(const device::Event&) const override { return 0; }

   private:
    std::unique_ptr<device::Event> event_;
    const bool& fails_;
  };
};

class PaddedStepsTest : public testing::TestWithParam<const char*> {};

TEST_P(PaddedStepsTest, GiveTheReferencesTokens) {
  const std::string folder = source_folder() + "/tests/data/models/" + GetParam();
  const Json golden = Json::parse(std::ifstream(folder + "/golden.json"));
  EngineOptions options;
  options.device = "cpu";
  options.dtype = options.kv_dtype = "fp32";
  options.dummy_weights = golden["seed"].get<uint64_t>();
  options.use_cache = false;
  const auto loaded = Engine::open(folder, options)->loaded();
  const auto gpu = std::make_shared<const runtime::LoadedEngine>(runtime::LoadedEngine{
      loaded->file, std::make_shared<GpuLike>(), loaded->weights, loaded->decoder_start_token_id});

  // After the prompts, steps of 6, 6, 5 and 3 sequences, which run as 8, 8, 8 and 4 rows. The first
  // and the third are odd steps of one kind, so the third is captured.
  const std::vector<int> lengths = {5, 3, 4, 5, 4, 5};
  std::vector<GenerationRequest> requests(lengths.size());
  size_t longest = 1;
  for (size_t i = 0; i < lengths.size(); ++i) {
    requests[i].input_ids = golden["prompts"][i]["input_ids"].get<std::vector<int32_t>>();
    requests[i].sampling.max_new_tokens = lengths[i];
    requests[i].sampling.ignore_eos = true;
    longest = std::max(longest, requests[i].input_ids.size());
  }
  runtime::SessionParts parts = runtime::set_up_session(
      gpu, {.batch_size = 9, .max_context_length = static_cast<int>(longest), .max_new_tokens = 5});
  decode_ahead(parts, requests);
  for (size_t i = 0; i < lengths.size(); ++i) {
    auto expected = golden["prompts"][i]["output_ids"].get<std::vector<int32_t>>();
    ASSERT_GE(expected.size(), static_cast<size_t>(lengths[i]));
    expected.resize(static_cast<size_t>(lengths[i]));
    EXPECT_EQ(parts.batch->outputs()[i].output_ids, expected) << "request " << i;
  }
  EXPECT_EQ(parts.stepper->captures(), 1);
}

INSTANTIATE_TEST_SUITE_P(Models, PaddedStepsTest,
                         testing::Values("llama_gqa", "gemma2", "mixtral", "deepseek_v2", "gpt_oss",
                                         "opt", "bloom", "llama_dynamic"));

// 3 sequences run as 4 rows. Steps 0 and 2 and steps 1 and 3 have the same buffers; 0 has the
// prompts, so 3 is the first that is captured.
TEST(FailedStepTest, SaysWhatItRan) {
  EngineOptions options;
  options.device = "cpu";
  options.dummy_weights = 20;
  options.use_cache = false;
  const auto loaded =
      Engine::open(source_folder() + "/tests/data/models/llama_gqa", options)->loaded();
  const auto message_of_step = [&](int failed) {
    const auto device = std::make_shared<FailingDevice>();
    const auto gpu = std::make_shared<const runtime::LoadedEngine>(runtime::LoadedEngine{
        loaded->file, device, loaded->weights, loaded->decoder_start_token_id});
    const runtime::SessionParts parts = runtime::set_up_session(
        gpu, {.batch_size = 4, .max_context_length = 5, .max_new_tokens = 6});
    std::vector<GenerationRequest> requests(3);
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].input_ids.assign(i + 3, 7);
      requests[i].sampling.max_new_tokens = 6;
      requests[i].sampling.ignore_eos = true;
    }
    parts.batch->begin(requests, {}, {}, *parts.stepper);
    for (int step = 0; step < failed; ++step) {
      parts.stepper->launch(*parts.batch->next_batch());
      parts.batch->absorb(parts.stepper->collect());
    }
    device->fails = true;
    parts.stepper->launch(*parts.batch->next_batch());
    try {
      parts.stepper->collect();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const auto matches = [&](int step, const char* pattern) {
    const std::string message = message_of_step(step);
    EXPECT_TRUE(std::regex_match(message, std::regex(pattern))) << message;
  };
  matches(0,
          "a kernel failed \\(a step of 12 rows, 3 of its 3 sequences with a prompt, [0-9]+ "
          "launches\\); ask for its name");
  matches(3,
          "a kernel failed \\(a step of 4 rows, 0 of its 3 sequences with a prompt, [0-9]+ "
          "launches in a replayed graph\\); ask for its name");
}

}  // namespace
}  // namespace millrace
