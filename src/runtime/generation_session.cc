// The spine of static-batch generation: set up, then one step after the other.
#include "millrace/generation_session.h"

#include "base/error.h"
#include "runtime/session_state.h"

namespace millrace {

namespace {

// What a GPU has less of than before the engine's weights were loaded.
int64_t taken_bytes(const runtime::LoadedEngine& loaded) {
  if (!loaded.device->is_asynchronous()) return 0;
  return loaded.weights->free_before() - loaded.device->free_bytes();
}

}  // namespace

GenerationSession::GenerationSession(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}

GenerationSession::~GenerationSession() = default;

void GenerationSession::setup(const SetupOptions& options) {
  state_.reset();  // what was there goes first: the new buffers may need its memory
  auto state = std::make_unique<State>();
  state->parts = runtime::set_up_session(engine_->loaded(), options);
  state->taken_by_setup = taken_bytes(*engine_->loaded());
  state_ = std::move(state);
}

int GenerationSession::batch_that_fits(const SetupOptions& options) const {
  return runtime::batch_that_fits(engine_->loaded(), options);
}

std::vector<GenerationOutput> GenerationSession::decode(
    const std::vector<GenerationRequest>& requests, const DecodeOptions& options) {
  decode_stream(requests, options);
  return decode_regular();
}

DecodeStream GenerationSession::decode_stream(const std::vector<GenerationRequest>& requests,
                                              const DecodeOptions& options) {
  CHECK(state_ != nullptr, "decode before setup");
  state_->drain();
  state_->steps.clear();
  state_->parts.batch->begin(requests, engine_->end_token_ids(), options, *state_->parts.stepper);
  return DecodeStream(*this);
}

std::vector<GenerationOutput> GenerationSession::decode_regular() {
  while (handle_per_step()) {
  }
  return state_->parts.batch->outputs();
}

bool GenerationSession::handle_per_step() {
  runtime::DecodeBatch& batch = *state_->parts.batch;
  state_->added.clear();
  // While the device runs a step, the next one is prepared and launched behind it: its tokens need
  // not be known here.
  const int ahead = state_->parts.stepper->runs_ahead() && !batch.waits_for_host() ? 2 : 1;
  while (state_->under_way < ahead && !batch.done() && state_->launch_next()) {
  }
  while (state_->under_way > 0) {
    state_->take_in(state_->collect());
    // A step that was ahead of the end brings nothing.
    if (!batch.done() || !state_->added.empty()) return true;
  }
  return false;
}

SessionStats GenerationSession::stats() const {
  CHECK(state_ != nullptr, "stats before setup");
  const runtime::GraphStepper& stepper = *state_->parts.stepper;
  const runtime::MemoryPlan& memory = stepper.memory();
  return {.weights_copied = memory.weights_copied,
          .weights_mapped = memory.weights_mapped,
          .activations = memory.arena,
          .kv_pool = memory.kv_pool,
          .step_buffers = memory.step_buffers,
          .token_history = memory.history,
          .sampler = memory.sampler,
          .prompt_table = memory.prompt_table,
          .taken_by_setup = state_->taken_by_setup,
          .taken = taken_bytes(*engine_->loaded()),
          .load_s = engine_->loaded()->weights->load_seconds(),
          .kv_blocks = state_->parts.kv_blocks,
          .kv_blocks_used_peak = state_->parts.batch->blocks_used_peak(),
          .steps = stepper.steps(),
          .captures = stepper.captures(),
          .runs_ahead = stepper.runs_ahead(),
          .waits_for_host = state_->parts.batch->waits_for_host(),
          .step_times = state_->steps};
}

std::optional<std::vector<StepToken>> DecodeStream::next() {
  if (!session_->handle_per_step()) return std::nullopt;
  return session_->state_->added;
}

void DecodeStream::finish(int sequence) {
  session_->state_->parts.batch->finish(sequence, FinishReason::kStop);
}

const std::vector<GenerationOutput>& DecodeStream::outputs() const {
  return session_->state_->parts.batch->outputs();
}

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
  }
  return "";
}

}  // namespace millrace
