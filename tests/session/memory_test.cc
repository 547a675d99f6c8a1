// The memory plan of a session against what is asked of the device.
#include <algorithm>

#include <gtest/gtest.h>

#include "base/error.h"
#include "forwarding_device.h"
#include "millrace/engine.h"
#include "runtime/session_setup.h"
#include "test_setup.h"

namespace millrace {
namespace {

/// Counts what it gives out and what is copied to it, and says that it has no more than `free`.
class CountingDevice : public ForwardingDevice {
 public:
  const device::Properties& properties() const override {
    return is_gpu ? gpu_ : ForwardingDevice::properties();
  }
  void copy_to_device(void* target, const void* source, int64_t bytes) override {
    copied += bytes;
    ForwardingDevice::copy_to_device(target, source, bytes);
  }
  std::unique_ptr<device::Memory> allocate(int64_t bytes, const std::string& purpose) override {
    allocated += bytes;
    return ForwardingDevice::allocate(bytes, purpose);
  }
  std::unique_ptr<device::Memory> allocate_host(int64_t bytes, const std::string& p) override {
    return allocate(bytes, p);
  }
  int64_t free_bytes() const override { return free; }

  int64_t allocated = 0, copied = 0, free = int64_t{1} << 40;
  bool is_gpu = false;

 private:
  const device::Properties gpu_ = {.kind = device::Kind::kCuda, .name = "a GPU"};
};

struct Case {
  const char* model;
  int beams;
  SetupOptions setup;
};

class MemoryPlanTest : public testing::TestWithParam<Case> {
 protected:
  MemoryPlanTest() {
    EngineOptions options;
    options.device = "cpu";
    options.dtype = options.kv_dtype = "fp32";
    options.dummy_weights = 0;
    options.max_beam_width = GetParam().beams;
    options.use_cache = false;
    const std::string folder = source_folder() + "/tests/data/models/";
    original_ = Engine::open(folder + GetParam().model, options)->loaded();
    loaded_ = std::make_shared<const runtime::LoadedEngine>(runtime::LoadedEngine{
        original_->file, device_, original_->weights, original_->decoder_start_token_id});
  }

  const std::shared_ptr<CountingDevice> device_ = std::make_shared<CountingDevice>();
  // The weights are of the engine as it was opened; sessions use it on the device above.
  std::shared_ptr<const runtime::LoadedEngine> original_, loaded_;
};

TEST_P(MemoryPlanTest, IsWhatIsAllocated) {
  const runtime::SessionParts parts = runtime::set_up_session(loaded_, GetParam().setup);
  const runtime::MemoryPlan& plan = parts.stepper->memory();
  EXPECT_GT(plan.kv_pool, 0);
  EXPECT_EQ(plan.session(), device_->allocated);
}

TEST_P(MemoryPlanTest, IsCheckedBeforeAnythingIsAllocated) {
  const int64_t needed =
      runtime::set_up_session(loaded_, GetParam().setup).stepper->memory().session();
  device_->allocated = 0;
  device_->free = needed - 1;
  try {
    runtime::set_up_session(loaded_, GetParam().setup);
    FAIL() << "a session that does not fit";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("the session needs " + format_bytes(needed)), std::string::npos) << what;
    EXPECT_NE(what.find("are free"), std::string::npos) << what;
  }
  EXPECT_EQ(device_->allocated, 0);
  device_->free = needed;
  EXPECT_NO_THROW(runtime::set_up_session(loaded_, GetParam().setup));
}

// Weights that go to a GPU, and a session that does not fit beside them. (Only the weights take the
// device for a GPU: the engine's tactics are a CPU's.)
TEST_P(MemoryPlanTest, IsCheckedBeforeWeightsAreRead) {
  const int64_t session =
      runtime::set_up_session(loaded_, GetParam().setup).stepper->memory().session();
  device_->is_gpu = true;
  const auto weights = std::make_shared<runtime::Weights>(original_->file, *device_);
  device_->is_gpu = false;
  const auto unread = std::make_shared<const runtime::LoadedEngine>(
      runtime::LoadedEngine{original_->file, device_, weights, original_->decoder_start_token_id});
  const int64_t needed = weights->copied_bytes();
  int64_t in_weights = 0;
  for (const engine::Weight& weight : unread->engine().weights)
    in_weights += runtime::weight_bytes(weight);
  EXPECT_GE(needed, in_weights);
  device_->allocated = 0;
  device_->free = needed + session - 1;
  try {
    runtime::set_up_session(unread, GetParam().setup);
    FAIL() << "a session that does not fit";
  } catch (const Error& error) {
    const std::string what = error.what();
    for (const std::string& part : {"the session needs " + format_bytes(session),
                                    "beside " + format_bytes(needed) + " of weights",
                                    format_bytes(device_->free) + " of ", std::string("lower")})
      EXPECT_NE(what.find(part), std::string::npos) << part << " in: " << what;
  }
  EXPECT_EQ(device_->copied, 0);
  EXPECT_EQ(device_->allocated, 0);

  SetupOptions many = GetParam().setup;
  many.batch_size = 20;
  device_->free = 3 * session;
  const int batch = runtime::batch_that_fits(loaded_, many);
  device_->free += needed;
  EXPECT_EQ(runtime::batch_that_fits(unread, many), batch);

  device_->free = needed + session;
  EXPECT_NO_THROW(runtime::set_up_session(unread, GetParam().setup));
  EXPECT_GE(device_->copied, in_weights);
  EXPECT_EQ(weights->pending_bytes(), 0);
  const int64_t once = device_->copied;
  EXPECT_NO_THROW(runtime::set_up_session(unread, GetParam().setup));
  EXPECT_EQ(device_->copied, once);
}

TEST_P(MemoryPlanTest, GivesTheLargestBatchThatFits) {
  constexpr int kMany = 20;
  SetupOptions setup = GetParam().setup;
  const auto session_bytes = [&](int batch) {
    setup.batch_size = batch;
    return runtime::set_up_session(loaded_, setup).stepper->memory().session();
  };
  const int64_t three = session_bytes(3), four = session_bytes(4);
  setup.batch_size = kMany;
  device_->free = (three + (four - three) / 2) / 95 * 100;  // 5 % are left over for other things
  EXPECT_EQ(runtime::batch_that_fits(loaded_, setup), 3);
  setup.batch_size = 2;
  EXPECT_EQ(runtime::batch_that_fits(loaded_, setup), 2);
  setup.batch_size = kMany;
  device_->free = 1000;
  EXPECT_EQ(runtime::batch_that_fits(loaded_, setup), 1);
  device_->free = int64_t{1} << 40;
  setup.kv_memory = runtime::set_up_session(loaded_, setup).stepper->memory().kv_pool / kMany * 7;
  EXPECT_EQ(runtime::batch_that_fits(loaded_, setup), 7);
}

TEST_P(MemoryPlanTest, KvMemoryIsTheSizeOfThePool) {
  SetupOptions setup = GetParam().setup;
  const runtime::SessionParts least = runtime::set_up_session(loaded_, setup);
  const int64_t needed = least.stepper->memory().kv_pool;
  // A block of each group may be missing at the end.
  const int64_t largest_block = needed / std::max<int64_t>(1, setup.batch_size);
  for (const int64_t bytes : {needed, needed + needed / 3, 7 * needed}) {
    setup.kv_memory = bytes;
    const runtime::SessionParts parts = runtime::set_up_session(loaded_, setup);
    EXPECT_LE(parts.stepper->memory().kv_pool, bytes);
    EXPECT_GT(parts.stepper->memory().kv_pool, bytes - largest_block);
    EXPECT_GE(parts.kv_blocks, least.kv_blocks * (bytes / needed));
  }
  setup.kv_memory = needed - 1;
  try {
    runtime::set_up_session(loaded_, setup);
    FAIL() << "a pool that is too small";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("raise --kv-memory"), std::string::npos)
        << error.what();
  }
  setup.kv_memory = device_->free = 4 * needed;  // nothing is left for the other buffers
  EXPECT_THROW(runtime::set_up_session(loaded_, setup), Error);
}

TEST_P(MemoryPlanTest, RefusesPoolsBeyondAllMemories) {
  SetupOptions setup = GetParam().setup;
  setup.tokens_per_block = 1 << 30;
  setup.batch_size = 256;
  EXPECT_LT(runtime::batch_that_fits(loaded_, setup), 10);
  device_->allocated = 0;
  EXPECT_THROW(runtime::set_up_session(loaded_, setup), Error);
  EXPECT_EQ(device_->allocated, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Models, MemoryPlanTest,
    testing::Values(
        Case{"llama_gqa", 1, {.batch_size = 5, .max_context_length = 60, .max_new_tokens = 32}},
        Case{"llama_gqa",
             4,
             {.batch_size = 2,
              .max_context_length = 30,
              .max_new_tokens = 9,
              .beam_width = 3,
              .max_logprobs = 7}},
        Case{"gemma2",
             1,
             {.batch_size = 3,
              .max_context_length = 40,
              .max_new_tokens = 20,
              .max_logprobs = 5,
              .tokens_per_block = 8}},
        Case{"t5_relu",
             1,
             {.batch_size = 2,
              .max_context_length = 4,
              .max_new_tokens = 12,
              .max_encoder_length = 20}}));

}  // namespace
}  // namespace millrace
