// Encoder-decoder models step by step: when cross caches are written, and when they are given back.
#include <algorithm>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/hash.h"
#include "base/json.h"
#include "base/str.h"
#include "forwarding_device.h"
#include "millrace/generation_session.h"
#include "runtime/measure.h"
#include "runtime/session_setup.h"
#include "test_setup.h"

namespace millrace {
namespace {

using Json = nlohmann::json;

struct Golden {
  std::shared_ptr<Engine> engine;
  std::vector<GenerationRequest> requests;
  std::vector<std::vector<int32_t>> outputs;
};

Golden open_golden(const std::string& name, const std::string& device = test_device_name()) {
  const std::string folder = source_folder() + "/tests/data/models/" + name;
  const Json json = parse_json_file(folder + "/golden.json");
  EngineOptions options;
  options.device = device;
  options.dtype = options.kv_dtype = "fp32";
  options.threads = 2;
  options.dummy_weights = json["seed"].get<uint64_t>();
  options.use_cache = false;
  Golden golden;
  golden.engine = Engine::open(folder, options);
  for (const Json& prompt : json["prompts"]) {
    GenerationRequest request{prompt["input_ids"], {}};
    request.decoder_input_ids = prompt["decoder_input_ids"].get<std::vector<int32_t>>();
    request.sampling.max_new_tokens = 32;
    request.sampling.ignore_eos = true;
    golden.requests.push_back(std::move(request));
    golden.outputs.push_back(prompt["output_ids"]);
  }
  return golden;
}

/// A session taken apart, so that its caches can be looked at between steps.
class Steps {
 public:
  explicit Steps(const Golden& golden)
      : loaded_(golden.engine->loaded()),
        parts_(runtime::set_up_session(loaded_, {.batch_size = 6,
                                                 .max_context_length = 13,
                                                 .max_new_tokens = 32,
                                                 .max_encoder_length = 60,
                                                 .tokens_per_block = 8})) {
    parts_.batch->begin(golden.requests, {}, {}, *parts_.stepper);
  }

  bool run_one() {
    const Batch* next = parts_.batch->next_batch();
    if (next == nullptr) return false;
    contexts = 0;
    for (const StepSequence& s : next->sequences)
      contexts += s.is_context ? 1 : 0;
    parts_.stepper->launch(*next);
    parts_.batch->absorb(parts_.stepper->collect());
    parts_.batch->check_integrity();
    return true;
  }

  /// Of all cross caches, or of all others.
  uint64_t hash_caches(bool cross) const {
    uint64_t hash = 0;
    const auto& groups = loaded_->engine().kv_groups;
    for (size_t g = 0; g < groups.size(); ++g) {
      if (groups[g].cross != cross) continue;
      const device::Memory& memory = parts_.stepper->kv_pool().memory(g);
      std::vector<std::byte> bytes(static_cast<size_t>(memory.size()));
      loaded_->device->copy_to_host(bytes.data(), memory.data(), memory.size());
      hash = hash * 31 + hash64(bytes);
    }
    return hash;
  }
  int64_t encoder_runs() const { return parts_.stepper->encoder_runs(); }
  const std::vector<GenerationOutput>& outputs() const { return parts_.batch->outputs(); }

  int contexts = 0;  // sequences of the last step that were in their prompt

 private:
  std::shared_ptr<const runtime::LoadedEngine> loaded_;
  runtime::SessionParts parts_;
};

class EncoderDecoderTest : public testing::TestWithParam<const char*> {};

TEST_P(EncoderDecoderTest, CrossCachesAreWrittenInTheContextStepOnly) {
  const Golden golden = open_golden(GetParam());
  Steps steps(golden);
  const uint64_t before = steps.hash_caches(true);
  ASSERT_TRUE(steps.run_one());
  ASSERT_EQ(steps.contexts, 6);
  const uint64_t written = steps.hash_caches(true), self = steps.hash_caches(false);
  EXPECT_NE(written, before);
  int generation_steps = 0;
  while (steps.run_one()) {
    EXPECT_EQ(steps.contexts, 0);
    ++generation_steps;
  }
  EXPECT_EQ(generation_steps, 31);
  EXPECT_EQ(steps.encoder_runs(), 1);
  EXPECT_EQ(steps.hash_caches(true), written);
  EXPECT_NE(steps.hash_caches(false), self);
  for (size_t i = 0; i < golden.outputs.size(); ++i)
    EXPECT_EQ(steps.outputs()[i].output_ids, golden.outputs[i]) << i;
}

INSTANTIATE_TEST_SUITE_P(Models, EncoderDecoderTest, testing::Values("t5_relu", "bart"));

TEST(EncoderDecoder, ServesManyBatchesInOneSession) {
  const Golden golden = open_golden("bart");
  GenerationSession session(golden.engine);
  session.setup({.batch_size = 2,
                 .max_context_length = 13,
                 .max_new_tokens = 32,
                 .max_encoder_length = 60,
                 .tokens_per_block = 8});
  for (size_t i = 0; i + 1 < golden.requests.size(); ++i) {
    const auto outputs = session.decode({golden.requests[i + 1], golden.requests[i]});
    EXPECT_EQ(outputs[0].output_ids, golden.outputs[i + 1]);
    EXPECT_EQ(outputs[1].output_ids, golden.outputs[i]);
    EXPECT_EQ(outputs[0].reused_tokens, 0);
  }
}

TEST(EncoderDecoder, RefusesWhatDoesNotFit) {
  Golden golden = open_golden("bart");
  GenerationSession session(golden.engine);
  session.setup(
      {.batch_size = 2, .max_context_length = 4, .max_new_tokens = 4, .max_encoder_length = 20});
  const auto refusal = [&](GenerationRequest request) {
    request.sampling.max_new_tokens = 1;
    try {
      session.decode({request});
      return std::string();
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  const GenerationRequest good{{5, 6, 7}, {}};
  GenerationRequest empty = good, too_long = good, unknown = good, unknown_start = good;
  empty.input_ids.clear();
  too_long.input_ids.assign(21, 5);
  unknown.input_ids[1] = 150;
  unknown_start.decoder_input_ids = {2, 150};
  EXPECT_EQ(refusal(good), "");
  EXPECT_NE(refusal(empty).find("empty"), std::string::npos);
  EXPECT_NE(refusal(too_long).find("21 tokens, the encoder takes 20"), std::string::npos);
  EXPECT_NE(refusal(unknown).find("150"), std::string::npos);
  EXPECT_NE(refusal(unknown_start).find("150"), std::string::npos);
  EXPECT_EQ(refusal(good), "");
  EXPECT_THROW(session.setup({.batch_size = 1, .max_context_length = 4, .max_encoder_length = 129}),
               Error);
}

/// Where a wait for what is held back would never end: it fails.
class HoldingDevice : public ForwardingDevice {
 public:
  bool is_asynchronous() const override { return true; }
  void synchronize() override { EXPECT_EQ(current, 0) << "waits for all that is enqueued"; }
  std::unique_ptr<device::Hold> hold() override {
    current = ++holds;
    return std::make_unique<CountedHold>(*this);
  }
  std::unique_ptr<device::Event> make_event() override {
    return std::make_unique<CheckedEvent>(ForwardingDevice::make_event(), *this);
  }

  int current = 0;  // number of the hold that is in place; 0: none
  int holds = 0;    // so far

 private:
  class CountedHold : public device::Hold {
   public:
    explicit CountedHold(HoldingDevice& device) : device_(device) {}
    ~CountedHold() override { release(); }
    void release() override { device_.current = 0; }

   private:
    HoldingDevice& device_;
  };
  class CheckedEvent : public device::Event {
   public:
    CheckedEvent(std::unique_ptr<device::Event> event, const HoldingDevice& device)
        : event_(std::move(event)), device_(device) {}
    void record() override {
      recorded_in_ = device_.current;
      event_->record();
    }
    void wait() override { EXPECT_TRUE(device_.current == 0 || recorded_in_ != device_.current); }
    double seconds_since(const device::Event& earlier) const override {
      return event_->seconds_since(*static_cast<const CheckedEvent&>(earlier).event_);
    }

   private:
    std::unique_ptr<device::Event> event_;
    const HoldingDevice& device_;
    int recorded_in_ = 0;
  };
};

TEST(EncoderDecoder, IsMeasuredWithoutWaitingForWhatIsHeldBack) {
  const auto loaded = open_golden("t5_relu", "cpu").engine->loaded();
  const auto device = std::make_shared<HoldingDevice>();
  const auto held = std::make_shared<const runtime::LoadedEngine>(
      runtime::LoadedEngine{loaded->file, device, loaded->weights, loaded->decoder_start_token_id});
  for (const bool encoder : {true, false}) {
    device->holds = 0;
    const auto launches =
        runtime::measure_step(held, {.rows = 5, .measure = true, .encoder = encoder});
    EXPECT_GT(device->holds, 0);
    EXPECT_EQ(std::count_if(launches.begin(), launches.end(),
                            [](const auto& launch) { return launch.op == "cross_append"; }),
              encoder ? 2 : 0);
    for (const runtime::MeasuredLaunch& launch : launches)
      EXPECT_GT(launch.time_us, 0) << launch.op;
  }
}

}  // namespace
}  // namespace millrace
