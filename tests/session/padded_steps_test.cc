// Steps as a GPU runs them: launched ahead, and with rows that belong to no sequence, so that one
// captured step serves several sizes of a batch. On a CPU that behaves like a GPU towards its
// callers; the tokens are those that transformers recorded.
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

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

}  // namespace
}  // namespace millrace
