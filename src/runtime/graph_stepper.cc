#include "runtime/graph_stepper.h"

#include <algorithm>

#include "base/error.h"
#include "engine/weight_order.h"
#include "ops/common/beam_row.h"
#include "runtime/bind_frame.h"
#include "runtime/op_calls.h"

namespace millrace::runtime {
namespace {

ops::Tensor matrix(void* data, int64_t rows, int64_t columns) {
  return matrix_at(data, ir::DType::kI32, rows, columns);
}

ops::Tensor vector(void* data, int64_t count) {
  return vector_at(data, ir::DType::kI32, count);
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

// The weights are read when the session is known to fit beside them.
MemoryPlan load_what_fits(const LoadedEngine& loaded, const StepperOptions& options) {
  const MemoryPlan plan = plan_that_fits(loaded, options);
  loaded.weights->load();
  return plan;
}

}  // namespace

GraphStepper::GraphStepper(std::shared_ptr<const LoadedEngine> engine,
                           const StepperOptions& options)
    : loaded_(std::move(engine)),
      options_(options),
      device_(*loaded_->device),
      plan_(load_what_fits(*loaded_, options_)),
      program_(loaded_->engine(), loaded_->engine().manifest.model, device_),
      kv_(loaded_->engine().kv_groups, options.kv_dtype, options.kv, device_) {
  const StepLimits& limits = options_.limits;
  const engine::Engine& planned = loaded_->engine();
  arena_ = device_.allocate(plan_.arena, "activations");
  tables_ = device_.allocate(plan_.history, "token history");
  if (planned.encoder) {
    encoder_ = std::make_unique<EncoderRunner>(*loaded_, limits, kv_, arena_->data());
  }
  slots_.resize(static_cast<size_t>(limits.max_sequences));
  if (plan_.prompt_table > 0) {
    prompt_table_ = device_.allocate(plan_.prompt_table, "prompt table");
  }
  sampler_ = std::make_unique<Sampler>(sampler_sizes(planned, options_, tables_->data()), device_);
  sampler_->allocate();
  if (limits.beams > 1) {
    const BeamSizes sizes = beam_sizes(planned, options_, tables_->data());
    beam_sampler_ = std::make_unique<BeamSampler>(sizes, device_);
    beam_sampler_->allocate();
  }
  for (Instance& instance : instances_) {
    instance.buffers = std::make_unique<StepBuffers>(limits, device_);
    instance.results = std::make_unique<StepResults>(limits, options_.max_logprobs, device_);
    instance.done = device_.make_event();
    bind(instance);
  }
}

ops::Tensor GraphStepper::history() const {
  return matrix(tables_->data(), options_.limits.max_sequences, options_.max_seq_len);
}

void GraphStepper::bind(Instance& instance) {
  const engine::Engine& engine = loaded_->engine();
  const auto input = [&](const std::string& name) -> void* {
    if (name == "token_history") return tables_->data();
    if (name == "cache_indirection") return tables_->data() + history().bytes();
    if (name == kPromptTable) return prompt_table_->data();
    return instance.buffers->address(name);
  };
  for (const Regime regime : {Regime::kContext, Regime::kGeneration}) {
    Frame& frame = instance.frames[static_cast<size_t>(regime)];
    frame = program_.make_frame(regime, arena_->data());
    bind_frame(*loaded_, engine, engine::weight_order(engine).graph, kv_, input, frame);
  }
}

void GraphStepper::begin_sequence(int slot, const SequenceOptions& options) {
  ops::SamplingDefaults defaults{.prompt_length = options.prompt_length,
                                 .max_new_tokens = options.max_new_tokens,
                                 .seed = options.seed,
                                 .output_index = options.output_index,
                                 .end_token_ids = options.end_token_ids};
  slots_[static_cast<size_t>(slot)].packed = ops::pack_sampling(options.sampling, defaults);
  lists_changed_ = true;
  if (options.prompt_table.empty()) return;
  device_.synchronize();
  device_.copy_to_device(prompt_table_->data() + slot * prompt_table_bytes(loaded_->engine().graph),
                         options.prompt_table.data(),
                         static_cast<int64_t>(options.prompt_table.size_bytes()));
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
  const bool captured = is_capturable(batch);
  const StepLimits& limits = options_.limits;
  int padded_rows = 0;
  if (captured && batch.beams == 1) {
    padded_rows = row_bucket(static_cast<int>(batch.sequences.size()),
                             std::min(limits.max_sequences, limits.max_num_tokens));
  }
  instance.shape = fill_step_buffers(batch,
                                     {.limits = limits,
                                      .slots = slots_,
                                      .history_length = options_.max_seq_len,
                                      .padded_rows = padded_rows},
                                     *instance.buffers);
  const StepShape& shape = instance.shape;
  const Regime regime = shape.context_sequences > 0 || shape.rows > limits.max_sequences
                            ? Regime::kContext
                            : Regime::kGeneration;
  if (encoder_) encoder_->run(batch);
  process_logits_ = batch.logits_processor;
  if (captured) {
    replay(instance, regime);
  } else {
    instance.result.launches = enqueue(instance, regime);
  }
  instance.done->record();
  if (batch.logits_sink) deliver_sampled_logits(instance, regime, batch);
  run_target_rows(instance, regime, batch);
  instance.pending = true;  // a launch that throws leaves nothing to collect
}

// One row for each sequence, which samples, and nothing in between for the host.
bool GraphStepper::is_capturable(const Batch& batch) const {
  return options_.capture && device_.is_asynchronous() && !batch.logits_processor &&
         program_.observations == nullptr &&
         std::all_of(batch.sequences.begin(), batch.sequences.end(), [](const StepSequence& s) {
           return !s.is_context && s.tokens.empty() && s.sample;
         });
}

// Replays the step when one like it was captured, else enqueues its launches one by one.
void GraphStepper::replay(Instance& instance, Regime regime) {
  const StepShape& shape = instance.shape;
  const StepKey key{shape.rows, shape.sampled, shape.adjusts, instance.logprobs >= 0,
                    shape.length_class};
  const auto [it, is_new] = instance.graphs.try_emplace(key);
  CapturedStep& step = it->second;
  if (is_new) {
    step.launches = enqueue(instance, regime);
  } else {
    if (step.graph == nullptr) {
      step.graph = device_.capture([&] { enqueue(instance, regime); });
      ++captures_;
    }
    step.graph->replay();
    instance.result.replayed = true;
  }
  instance.result.launches = step.launches;
}

// Returns the number of launches, of which the first and the last are transfers.
int GraphStepper::enqueue(Instance& instance, Regime regime) {
  const StepShape& shape = instance.shape;
  StepBuffers& buffers = *instance.buffers;
  const auto sampler_runs = [&] {
    return sampler_->runs() + (beam_sampler_ ? beam_sampler_->runs() : 0);
  };
  int launches = 2 - sampler_runs();
  buffers.begin_step(StepBuffers::arrays_in_use(shape, options_.limits),
                     instance.results->begun_ns());
  if (shape.prompt_segments > 0) {
    sampler_->append_prompts(
        history(), vector(buffers.address(StepBuffers::kInputIds), shape.rows),
        matrix(buffers.address(StepBuffers::kPromptSegments), shape.prompt_segments, 4));
  }
  launches += run_body(instance, regime);
  std::vector<ops::Tensor> found;
  if (shape.sampled > 0) {
    launches += run_head(instance, regime, shape.sampled);
    found = sample(instance, logits(instance, regime, shape.sampled));
  }
  instance.results->end_step(found);
  return launches + sampler_runs();
}

int GraphStepper::run_body(Instance& instance, Regime regime) {
  const StepShape& shape = instance.shape;
  return program_.run(instance.frames[static_cast<size_t>(regime)], sizes(shape, 1),
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

int GraphStepper::run_head(Instance& instance, Regime regime, int rows) {
  return program_.run(instance.frames[static_cast<size_t>(regime)], sizes(instance.shape, rows),
                      {.begin = loaded_->engine().head_begin, .end = program_.num_launches()});
}

// Returns what it found, in the order of StepResults.
std::vector<ops::Tensor> GraphStepper::sample(Instance& instance, const ops::Tensor& logits) {
  const StepShape& shape = instance.shape;
  const int rows = shape.sampled;
  StepBuffers& buffers = *instance.buffers;
  const ops::Tensor records =
      matrix(buffers.address(StepBuffers::kSamplingRows), rows, ops::kSamplingRowWords);
  const SamplerInputs inputs{.rows = records,
                             .lists = vector(lists_->data(), lists_->size() / 4),
                             .history = history(),
                             .adjusts = shape.adjusts,
                             .on_adjusted = [&](const ops::Tensor& adjusted) {
                               if (process_logits_) process_on_host(instance, adjusted);
                             }};
  if (beam_sampler_) return choose_beams(instance, logits, inputs);
  sampler_->sample(logits, inputs);
  std::vector<ops::Tensor> found = {sampler_->tokens(rows), sampler_->status(rows)};
  if (instance.logprobs < 0) return found;
  sampler_->logprobs(logits, sampler_->tokens(rows),
                     vector(buffers.address(StepBuffers::kTargetCounts), rows));
  for (const ops::Tensor& column :
       {sampler_->logprobs(rows), sampler_->top_ids(rows), sampler_->top_logprobs(rows)}) {
    found.push_back(column);
  }
  return found;
}

// Rows go to the host and come back.
void GraphStepper::process_on_host(const Instance& instance, const ops::Tensor& adjusted) {
  host_logits_.resize(static_cast<size_t>(adjusted.count()));
  device_.copy_to_host(host_logits_.data(), adjusted.data, adjusted.bytes());
  const auto vocab = static_cast<size_t>(adjusted.dim(1));
  for (size_t l = 0; l < static_cast<size_t>(instance.shape.sampled); ++l) {
    process_logits_(instance.shape.sampled_sequence[l],
                    std::span(host_logits_).subspan(l * vocab, vocab));
  }
  device_.copy_to_device(adjusted.data, host_logits_.data(), adjusted.bytes());
  device_.synchronize();  // the host's copy is used again
}

std::vector<ops::Tensor> GraphStepper::choose_beams(Instance& instance, const ops::Tensor& logits,
                                                    const SamplerInputs& inputs) {
  const int requests = instance.shape.beam_requests;
  beam_sampler_->choose(
      logits, inputs,
      matrix(instance.buffers->address(StepBuffers::kBeams), requests, ops::kBeamRowWords));
  return {beam_sampler_->chosen(requests), beam_sampler_->parents(requests),
          beam_sampler_->tokens(requests), beam_sampler_->status(requests)};
}

void GraphStepper::deliver_sampled_logits(const Instance& instance, Regime regime,
                                          const Batch& batch) {
  const ops::Tensor rows = logits(instance, regime, instance.shape.sampled);
  for (size_t l = 0; l < instance.shape.sampled_sequence.size(); ++l) {
    const int s = instance.shape.sampled_sequence[l];
    const StepSequence& sequence = batch.sequences[static_cast<size_t>(s)];
    deliver_logits(batch, {s, sequence.num_tokens() - 1, 1, {}},
                   row_of(rows, static_cast<int64_t>(l)));
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
      run_head(instance, regime, rows);
      const ops::Tensor head = logits(instance, regime, rows);
      if (batch.logprobs >= 0) {
        sampler_->logprobs(head, vector(buffers.address(StepBuffers::kTargets), rows),
                           vector(buffers.address(StepBuffers::kTargetCounts), rows));
        auto found =
            read_logprobs(targets.subspan(begin, static_cast<size_t>(rows)), rows, batch.logprobs);
        auto& all = instance.result.targets[s];
        all.insert(all.end(), std::make_move_iterator(found.begin()),
                   std::make_move_iterator(found.end()));
      }
      deliver_logits(batch, {static_cast<int>(s), static_cast<int>(begin), rows, {}}, head);
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
  const LogprobRows found{ids.data(), logprobs.data(), top_ids.data(), top_values.data(),
                          options_.max_logprobs};
  std::vector<TokenLogprobs> tokens;
  for (size_t l = 0; l < static_cast<size_t>(rows); ++l)
    tokens.push_back(found.at(l, top));
  return tokens;
}

// For messages: which of a step's kernels failed is not known.
std::string GraphStepper::describe(const Instance& instance) {
  const StepShape& shape = instance.shape;
  return str("a step of ", shape.rows, " rows, ", shape.context_sequences, " of its ",
             shape.first_row.size(), " sequences with a prompt, ", instance.result.launches,
             " launches", instance.result.replayed ? " in a replayed graph" : "");
}

StepResult GraphStepper::collect() {
  // The oldest step that is under way.
  Instance& older = instances_[static_cast<size_t>(steps_ % 2)];
  Instance& instance = older.pending ? older : instances_[static_cast<size_t>((steps_ + 1) % 2)];
  CHECK(instance.pending, "no step is under way");
  instance.pending = false;
  try {
    instance.done->wait();
  } catch (Error& error) {
    error.add_context(describe(instance));
    throw;
  }
  loaded_->weights->check_intact();
  instance.results->read(instance.shape, instance.logprobs, instance.result);
  take_times(instance);
  return std::move(instance.result);
}

void GraphStepper::take_times(Instance& instance) {
  StepResult& result = instance.result;
  // A step that was launched behind another began when that one ended.
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::duration<double> took = now - std::max(instance.start, last_collect_);
  last_collect_ = now;
  result.seconds = took.count();
  const int64_t began = instance.results->began(), ended = instance.results->ended();
  result.device_seconds = 1e-9 * static_cast<double>(ended - began);
  result.idle_seconds = 1e-9 * static_cast<double>(std::max<int64_t>(0, began - last_ended_ns_));
  last_ended_ns_ = ended;
}

}  // namespace millrace::runtime
