#include "runtime/graph_stepper.h"

#include <algorithm>

#include "base/error.h"
#include "engine/weight_order.h"
#include "runtime/bind_frame.h"

namespace millrace::runtime {
namespace {

int64_t arena_bytes(const engine::Engine& engine) {
  int64_t bytes = 64;
  for (const engine::RegimePlan& regime : engine.regimes) {
    bytes = std::max(bytes, regime.arena_bytes);
  }
  if (engine.encoder) bytes = std::max(bytes, engine.encoder->regimes[0].arena_bytes);
  return bytes;
}

ops::Tensor matrix(void* data, int64_t rows, int64_t columns) {
  const std::array<int64_t, 2> shape = {rows, columns};
  return {data, ir::DType::kI32, shape};
}

ops::Tensor vector(void* data, int64_t count) {
  const std::array<int64_t, 1> shape = {count};
  return {data, ir::DType::kI32, shape};
}

/// Row `row` of a matrix, as a matrix.
ops::Tensor row_of(const ops::Tensor& tensor, int64_t row) {
  const std::array<int64_t, 2> shape = {1, tensor.dim(1)};
  const int64_t offset = row * tensor.dim(1) * ir::dtype_size(tensor.dtype);
  return {tensor.as<std::byte>() + offset, tensor.dtype, shape};
}

template <typename T>
std::vector<T> read_back(const ops::Tensor& tensor, device::Device& device) {
  std::vector<T> values(static_cast<size_t>(tensor.count()));
  device.copy_to_host(values.data(), tensor.data, tensor.bytes());
  return values;
}

}  // namespace

GraphStepper::GraphStepper(std::shared_ptr<const LoadedEngine> engine,
                           const StepperOptions& options)
    : loaded_(std::move(engine)),
      options_(options),
      device_(*loaded_->device),
      program_(loaded_->engine(), loaded_->engine().manifest.model, device_),
      kv_(loaded_->engine().kv_groups, options.kv_dtype, options.kv, device_) {
  const StepLimits& limits = options_.limits;
  arena_ = device_.allocate(arena_bytes(loaded_->engine()), "activations");
  history_ =
      device_.allocate(int64_t{limits.max_sequences} * options_.max_seq_len * 4, "token history");
  if (loaded_->engine().encoder) {
    encoder_ = std::make_unique<EncoderRunner>(*loaded_, limits, kv_, arena_->data());
  }
  slots_.resize(static_cast<size_t>(limits.max_sequences));
  const SamplerSizes sizes{
      .max_rows = limits.max_logit_rows,
      .vocab_size = loaded_->engine().manifest.vocab_size,
      .max_logprobs = std::max(1, options_.max_logprobs),
      .history = matrix(history_->data(), limits.max_sequences, options_.max_seq_len)};
  sampler_ = std::make_unique<Sampler>(sizes, device_);
  for (Instance& instance : instances_) {
    instance.buffers = std::make_unique<StepBuffers>(limits, device_);
    instance.results = device_.allocate_host(result_bytes(), "step results");
    instance.done = device_.make_event();
    bind(instance);
  }
}

void GraphStepper::bind(Instance& instance) {
  const engine::Engine& engine = loaded_->engine();
  const auto input = [&](const std::string& name) {
    return name == "token_history" ? history_->data() : instance.buffers->address(name);
  };
  for (const Regime regime : {Regime::kContext, Regime::kGeneration}) {
    Frame& frame = instance.frames[static_cast<size_t>(regime)];
    frame = program_.make_frame(regime, arena_->data());
    bind_frame(*loaded_, engine, engine::weight_order(engine).graph, kv_, input, frame);
  }
}

MemoryPlan GraphStepper::memory() const {
  return {.weights_copied = loaded_->weights->copied_bytes(),
          .weights_mapped = loaded_->weights->mapped_bytes(),
          .arena = arena_->size(),
          .kv_pool = kv_.bytes(),
          .step_buffers = 2 * (instances_[0].buffers->bytes() + instances_[1].buffers->bytes() +
                               (encoder_ ? encoder_->bytes() : 0)),
          .history = history_->size(),
          .sampler = sampler_->bytes()};
}

void GraphStepper::begin_sequence(int slot, const SequenceOptions& options) {
  ops::SamplingDefaults defaults{.prompt_length = options.prompt_length,
                                 .max_new_tokens = options.max_new_tokens,
                                 .seed = options.seed,
                                 .output_index = options.output_index,
                                 .end_token_ids = options.end_token_ids};
  slots_[static_cast<size_t>(slot)].packed = ops::pack_sampling(options.sampling, defaults);
  lists_changed_ = true;
}

// Lists (logit bias, bad words, ...) change only when sequences begin, so they stay on the device
// between steps.
void GraphStepper::upload_lists() {
  if (!lists_changed_) return;
  std::vector<int32_t> lists;
  for (SlotSampling& slot : slots_) {
    slot.list_offset = static_cast<int>(lists.size());
    lists.insert(lists.end(), slot.packed.lists.begin(), slot.packed.lists.end());
  }
  if (lists.empty()) lists.push_back(0);
  device_.synchronize();
  const auto bytes = static_cast<int64_t>(lists.size() * sizeof(int32_t));
  if (!lists_ || lists_->size() < bytes) {
    for (Instance& instance : instances_)
      instance.graphs.clear();  // they hold the old address
    lists_.reset();
    lists_ = device_.allocate(std::max<int64_t>(2 * bytes, 4096), "sampling lists");
  }
  device_.copy_to_device(lists_->data(), lists.data(), bytes);
  lists_changed_ = false;
}

ir::Bindings GraphStepper::sizes(const StepShape& shape, int logit_rows) const {
  ir::Bindings bindings;
  bindings.set("T", shape.rows);
  bindings.set("S", shape.sequences);
  bindings.set("L", logit_rows);
  bindings.set("R", options_.limits.max_sequences);
  bindings.set("N", options_.max_seq_len);
  bindings.set("M", std::max(1, options_.limits.max_blocks));
  return bindings;
}

void GraphStepper::launch(const Batch& batch) {
  Instance& instance = instances_[static_cast<size_t>(steps_ % 2)];
  CHECK(!instance.pending, "two steps are already under way");
  ++steps_;
  upload_lists();
  instance.start = std::chrono::steady_clock::now();
  instance.logprobs = batch.logprobs;
  instance.result = {};
  instance.result.chosen.resize(batch.sequences.size());
  instance.result.targets.resize(batch.sequences.size());
  instance.shape =
      fill_step_buffers(batch, {options_.limits, slots_, options_.max_seq_len}, *instance.buffers);
  const StepShape& shape = instance.shape;
  const Regime regime = shape.context_sequences > 0 || shape.rows > options_.limits.max_sequences
                            ? Regime::kContext
                            : Regime::kGeneration;
  if (encoder_) encoder_->run(batch);
  run(instance, regime);
  instance.done->record();
  if (batch.logits_sink) deliver_sampled_logits(instance, regime, batch);
  run_target_rows(instance, regime, batch);
  instance.pending = true;  // a launch that throws leaves nothing to collect
}

// Replays the step when one like it was captured, else enqueues its launches one by one.
void GraphStepper::run(Instance& instance, Regime regime) {
  const StepShape& shape = instance.shape;
  const bool capturable = options_.capture && device_.is_asynchronous() &&
                          regime == Regime::kGeneration && shape.prompt_segments == 0 &&
                          shape.rows == shape.sequences && program_.observations == nullptr;
  if (!capturable) {
    enqueue(instance, regime);
    return;
  }
  const StepKey key{shape.rows, shape.sampled, shape.adjusts, instance.logprobs >= 0};
  const auto [it, is_new] = instance.graphs.try_emplace(key);
  if (is_new) {
    enqueue(instance, regime);
    return;
  }
  if (it->second == nullptr) {
    it->second = device_.capture([&] { enqueue(instance, regime); });
    ++captures_;
  }
  it->second->replay();
}

void GraphStepper::enqueue(Instance& instance, Regime regime) {
  const StepShape& shape = instance.shape;
  // The arrays of the head belong to the sampled rows; rows with targets use them first.
  instance.buffers->upload(int64_t{options_.limits.num_groups} * shape.sequences *
                           std::max(1, options_.limits.max_blocks));
  if (shape.prompt_segments > 0) {
    sampler_->append_prompts(
        matrix(history_->data(), options_.limits.max_sequences, options_.max_seq_len),
        vector(instance.buffers->address(StepBuffers::kInputIds), shape.rows),
        matrix(instance.buffers->address(StepBuffers::kPromptSegments), shape.prompt_segments, 4));
  }
  run_body(instance, regime);
  if (shape.sampled > 0) sample(instance, run_head(instance, regime, shape.sampled));
}

void GraphStepper::run_body(Instance& instance, Regime regime) {
  const StepShape& shape = instance.shape;
  program_.run(instance.frames[static_cast<size_t>(regime)], sizes(shape, 1),
               {.begin = 0,
                .end = loaded_->engine().head_begin,
                .context = shape.context_sequences > 0,
                .generation = shape.context_sequences < shape.sequences});
}

ops::Tensor GraphStepper::logits(const Instance& instance, Regime regime, int rows) const {
  const engine::Engine& engine = loaded_->engine();
  const ir::ValueId value = engine.graph.outputs()[0].value;
  const ir::TensorType& type = engine.graph.type(value);
  const std::array<int64_t, 2> shape = {rows, type.shape[1].value()};
  const Frame& frame = instance.frames[static_cast<size_t>(regime)];
  return {frame.values[static_cast<size_t>(value)], type.dtype, shape};
}

ops::Tensor GraphStepper::run_head(Instance& instance, Regime regime, int rows) {
  program_.run(instance.frames[static_cast<size_t>(regime)], sizes(instance.shape, rows),
               {.begin = loaded_->engine().head_begin, .end = program_.num_launches()});
  return logits(instance, regime, rows);
}

void GraphStepper::sample(Instance& instance, const ops::Tensor& logits) {
  const StepShape& shape = instance.shape;
  const int rows = shape.sampled;
  StepBuffers& buffers = *instance.buffers;
  const ops::Tensor records =
      matrix(buffers.address(StepBuffers::kSamplingRows), rows, ops::kSamplingRowWords);
  sampler_->sample(logits, {.rows = records,
                            .lists = vector(lists_->data(), lists_->size() / 4),
                            .history = matrix(history_->data(), options_.limits.max_sequences,
                                              options_.max_seq_len),
                            .adjusts = shape.adjusts});
  const SampledRows found = results(instance);
  const auto copy = [&](const void* target, const ops::Tensor& tensor) {
    device_.enqueue_copy_to_host(const_cast<void*>(target), tensor.data, tensor.bytes());
  };
  copy(found.tokens, sampler_->tokens(rows));
  copy(found.status, sampler_->status(rows));
  if (instance.logprobs < 0) return;
  sampler_->logprobs(logits, sampler_->tokens(rows),
                     vector(buffers.address(StepBuffers::kTargetCounts), rows));
  copy(found.logprobs, sampler_->logprobs(rows));
  copy(found.top_ids, sampler_->top_ids(rows));
  copy(found.top_logprobs, sampler_->top_logprobs(rows));
}

int64_t GraphStepper::result_bytes() const {
  const int64_t columns = std::max(1, options_.max_logprobs);
  return int64_t{options_.limits.max_logit_rows} * (3 + 2 * columns) * 4;
}

GraphStepper::SampledRows GraphStepper::results(const Instance& instance) const {
  const int64_t rows = options_.limits.max_logit_rows;
  const auto* words = reinterpret_cast<const int32_t*>(instance.results->data());
  const auto* floats = reinterpret_cast<const float*>(instance.results->data());
  const int64_t top = rows * std::max(1, options_.max_logprobs);
  return {words, words + rows, floats + 2 * rows, words + 3 * rows, floats + 3 * rows + top};
}

// Reads what the sampler found, once the step is done.
void GraphStepper::take_in(Instance& instance) {
  const SampledRows found = results(instance);
  for (size_t l = 0; l < static_cast<size_t>(instance.shape.sampled); ++l) {
    const int s = instance.shape.sampled_sequence[l];
    TokenLogprobs& token = instance.result.chosen[static_cast<size_t>(s)];
    if (instance.logprobs >= 0) token = token_logprobs(found, l, instance.logprobs);
    token.id = found.tokens[l];
    if (found.status[l] != ops::kSamplingOk) instance.result.failed_sequence = s;
  }
}

void GraphStepper::deliver_sampled_logits(const Instance& instance, Regime regime,
                                          const Batch& batch) {
  const ops::Tensor rows = logits(instance, regime, instance.shape.sampled);
  for (int l = 0; l < instance.shape.sampled; ++l) {
    const int s = instance.shape.sampled_sequence[static_cast<size_t>(l)];
    const StepSequence& sequence = batch.sequences[static_cast<size_t>(s)];
    deliver_logits(batch, {s, sequence.num_tokens() - 1, 1, {}}, row_of(rows, l));
  }
}

// The head, run again in chunks over rows whose next token is given (prompt log-probabilities,
// logits of a prompt).
void GraphStepper::run_target_rows(Instance& instance, Regime regime, const Batch& batch) {
  StepBuffers& buffers = *instance.buffers;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const auto targets = batch.sequences[s].targets;
    for (size_t begin = 0; begin < targets.size();) {
      const auto rows = static_cast<int>(std::min<size_t>(
          targets.size() - begin, static_cast<size_t>(options_.limits.max_logit_rows)));
      device_.synchronize();  // the arrays below may still be on their way
      for (int i = 0; i < rows; ++i) {
        const auto row = static_cast<int>(begin) + i;
        buffers.host("last_token_ids")[i] = instance.shape.first_row[s] + row;
        buffers.host(StepBuffers::kTargets)[i] = targets[static_cast<size_t>(row)];
        buffers.host(StepBuffers::kTargetCounts)[i] = batch.logprobs;
      }
      for (const char* array :
           {"last_token_ids", StepBuffers::kTargets, StepBuffers::kTargetCounts}) {
        buffers.upload(array, rows);
      }
      const ops::Tensor logits = run_head(instance, regime, rows);
      if (batch.logprobs >= 0) {
        sampler_->logprobs(logits, vector(buffers.address(StepBuffers::kTargets), rows),
                           vector(buffers.address(StepBuffers::kTargetCounts), rows));
        auto found =
            read_logprobs(targets.subspan(begin, static_cast<size_t>(rows)), rows, batch.logprobs);
        auto& all = instance.result.targets[s];
        all.insert(all.end(), std::make_move_iterator(found.begin()),
                   std::make_move_iterator(found.end()));
      }
      deliver_logits(batch, {static_cast<int>(s), static_cast<int>(begin), rows, {}}, logits);
      begin += static_cast<size_t>(rows);
    }
  }
}

// Hidden states may be narrower than f32.
void GraphStepper::deliver_logits(const Batch& batch, const LogitsRows& rows,
                                  const ops::Tensor& device_logits) {
  if (!batch.logits_sink) return;
  host_logits_.resize(static_cast<size_t>(device_logits.count()));
  std::vector<std::byte> stored(static_cast<size_t>(device_logits.bytes()));
  device_.copy_to_host(stored.data(), device_logits.data, device_logits.bytes());
  ir::convert(device_logits.dtype, stored.data(), ir::DType::kF32, host_logits_.data(),
              device_logits.count());
  LogitsRows delivered = rows;
  delivered.logits = host_logits_;
  batch.logits_sink(delivered);
}

std::vector<TokenLogprobs> GraphStepper::read_logprobs(std::span<const int32_t> ids, int rows,
                                                       int top) {
  const std::vector<float> logprobs = read_back<float>(sampler_->logprobs(rows), device_);
  const std::vector<int32_t> top_ids = read_back<int32_t>(sampler_->top_ids(rows), device_);
  const std::vector<float> top_values = read_back<float>(sampler_->top_logprobs(rows), device_);
  const SampledRows found{ids.data(), nullptr, logprobs.data(), top_ids.data(), top_values.data()};
  std::vector<TokenLogprobs> tokens;
  for (size_t l = 0; l < static_cast<size_t>(rows); ++l)
    tokens.push_back(token_logprobs(found, l, top));
  return tokens;
}

TokenLogprobs GraphStepper::token_logprobs(const SampledRows& rows, size_t row, int top) const {
  const auto columns = static_cast<size_t>(std::max(1, options_.max_logprobs));
  TokenLogprobs token{.id = rows.tokens[row], .logprob = rows.logprobs[row], .top = {}};
  for (size_t k = row * columns; k < row * columns + static_cast<size_t>(std::max(0, top)); ++k) {
    if (rows.top_ids[k] < 0) break;
    token.top.emplace_back(rows.top_ids[k], rows.top_logprobs[k]);
  }
  return token;
}

StepResult GraphStepper::collect() {
  // The oldest step that is under way.
  Instance& older = instances_[static_cast<size_t>(steps_ % 2)];
  Instance& instance = older.pending ? older : instances_[static_cast<size_t>((steps_ + 1) % 2)];
  CHECK(instance.pending, "no step is under way");
  instance.pending = false;
  instance.done->wait();
  loaded_->weights->check_intact();
  take_in(instance);
  // A step that was launched behind another began when that one ended.
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::duration<double> took = now - std::max(instance.start, last_collect_);
  last_collect_ = now;
  instance.result.seconds = took.count();
  return std::move(instance.result);
}

}  // namespace millrace::runtime
