// Steps of generated tokens on a GPU are captured graphs, made once. Programs built without CUDA do
// not have this test; without a GPU it fails.
#include <gtest/gtest.h>

#include "forwarding_device.h"
#include "millrace/engine.h"
#include "test_setup.h"

namespace millrace {
namespace {

/// Counts the graphs that are made, each by one capture and one instantiation, and their replays.
class CountingDevice : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  std::unique_ptr<device::CapturedGraph> capture(FunctionRef<void()> work) override {
    ++graphs;
    return std::make_unique<Counted>(ForwardingDevice::capture(work), &replays);
  }

  int64_t graphs = 0, replays = 0;

 private:
  class Counted : public device::CapturedGraph {
   public:
    Counted(std::unique_ptr<device::CapturedGraph> graph, int64_t* replays)
        : graph_(std::move(graph)), replays_(replays) {}
    void replay() override {
      ++*replays_;
      graph_->replay();
    }

   private:
    const std::unique_ptr<device::CapturedGraph> graph_;
    int64_t* const replays_;
  };
};

constexpr int kDecodes = 9, kPromptTokens = 8;
// The batch shrinks from 6 sequences to 2. Each of its sizes lasts for 20 steps and more.
constexpr int kNewTokens[] = {120, 120, 80, 60, 40, 20};
constexpr int kSteps = kDecodes * 120;  // of a round: a decode's first one has the prompts

/// As many as there are lengths; each decode of a round has other prompts, and every third draws,
/// or tells log-probabilities, which are steps of other kinds.
std::vector<GenerationRequest> requests(int decode) {
  std::vector<GenerationRequest> made;
  for (const int length : kNewTokens) {
    GenerationRequest request;
    const auto index = static_cast<int>(made.size());
    for (int i = 0; i < kPromptTokens; ++i)
      request.input_ids.push_back(3 + (7 * i + 11 * index + 29 * decode) % 150);
    request.sampling.max_new_tokens = length;
    request.sampling.ignore_eos = true;
    if (decode % 3 == 1) {
      request.sampling.do_sample = true;
      request.sampling.repetition_penalty = 1.2F;
      request.sampling.seed = 5;
    }
    if (decode % 3 == 2) request.sampling.logprobs = 2;
    made.push_back(std::move(request));
  }
  return made;
}

TEST(CapturesCudaTest, ASecondRoundMakesNone) {
  ASSERT_EQ(device::cuda_unusable(), "");
  EngineOptions options;
  options.device = "cuda";
  options.dummy_weights = 20;
  options.use_cache = false;
  const auto loaded =
      Engine::open(source_folder() + "/tests/data/models/llama_gqa", options)->loaded();
  const auto device = std::make_shared<CountingDevice>(device::make_cuda_device());
  const auto counted = std::make_shared<const runtime::LoadedEngine>(
      runtime::LoadedEngine{loaded->file, device, loaded->weights, loaded->decoder_start_token_id});
  runtime::SessionParts parts =
      runtime::set_up_session(counted, {.batch_size = static_cast<int>(std::size(kNewTokens)),
                                        .max_context_length = kPromptTokens,
                                        .max_new_tokens = 120,
                                        .max_logprobs = 2});
  const auto round = [&] {
    for (int decode = 0; decode < kDecodes; ++decode) {
      decode_ahead(parts, requests(decode));
      for (size_t i = 0; i < std::size(kNewTokens); ++i)
        EXPECT_EQ(parts.batch->outputs()[i].output_ids.size(), size_t(kNewTokens[i]));
    }
  };
  round();
  const int64_t graphs = device->graphs, replays = device->replays;
  EXPECT_GT(graphs, 0);
  EXPECT_EQ(parts.stepper->captures(), graphs);
  EXPECT_EQ(parts.stepper->steps(), kSteps);

  round();
  EXPECT_EQ(device->graphs, graphs);
  EXPECT_EQ(parts.stepper->captures(), graphs);
  EXPECT_EQ(parts.stepper->steps(), 2 * kSteps);
  EXPECT_EQ(device->replays - replays, kSteps - kDecodes);  // all but those with prompts
}

}  // namespace
}  // namespace millrace
