#include "runtime/graph_stepper.h"

#include <algorithm>

#include "base/error.h"
#include "engine/weight_order.h"
#include "ops/common/beam_row.h"
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

constexpr const char* kPromptTable = "prompt_table";
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

const ir::Shape* prompt_table_shape(const ir::Graph& graph) {
  for (const ir::NodeId id : graph.order()) {
    const ir::Node& node = graph.node(id);
    if (node.op == ir::kInputOp &&
        std::get<std::string>(*node.attrs.find("name")) == kPromptTable) {
      return &graph.type(node.outputs[0]).shape;
    }
  }
  return nullptr;
}

GraphStepper::GraphStepper(std::shared_ptr<const LoadedEngine> engine,
                           const StepperOptions& options)
    : loaded_(std::move(engine)),
      options_(options),
      device_(*loaded_->device),
      program_(loaded_->engine(), loaded_->engine().manifest.model, device_),
      kv_(loaded_->engine().kv_groups, options.kv_dtype, options.kv, device_) {
  const StepLimits& limits = options_.limits;
  arena_ = device_.allocate(arena_bytes(loaded_->engine()), "activations");
  const int64_t table = int64_t{limits.max_sequences} * options_.max_seq_len;
  const bool follows_beams = loaded_->engine().manifest.max_beam_width > 1;
  tables_ = device_.allocate((follows_beams ? 2 : 1) * table * 4, "token history");
  if (loaded_->engine().encoder) {
    encoder_ = std::make_unique<EncoderRunner>(*loaded_, limits, kv_, arena_->data());
  }
  slots_.resize(static_cast<size_t>(limits.max_sequences));
  allocate_prompt_table();
  if (limits.beams > 1) beam_sampler_ = std::make_unique<BeamSampler>(beam_sizes(), device_);
  const SamplerSizes sizes{.max_rows = limits.max_logit_rows,
                           .vocab_size = loaded_->engine().manifest.vocab_size,
                           .max_logprobs = std::max(1, options_.max_logprobs),
                           .history = history()};
  sampler_ = std::make_unique<Sampler>(sizes, device_);
  for (Instance& instance : instances_) {
    instance.buffers = std::make_unique<StepBuffers>(limits, device_);
    instance.results = device_.allocate_host(result_bytes(), "step results");
    instance.done = device_.make_event();
    bind(instance);
  }
}

void GraphStepper::allocate_prompt_table() {
  const ir::Shape* shape = prompt_table_shape(loaded_->engine().graph);
  if (shape == nullptr) return;
  prompt_table_bytes_ = (*shape)[1].value() * (*shape)[2].value() * 4;
  prompt_table_ =
      device_.allocate(options_.limits.max_sequences * prompt_table_bytes_, "prompt table");
}

BeamSizes GraphStepper::beam_sizes() const {
  const StepLimits& limits = options_.limits;
  const std::array<int64_t, 3> tables = {2, limits.max_sequences, options_.max_seq_len};
  return {.beams = limits.beams,
          .max_rows = limits.max_logit_rows,
          .max_requests = limits.max_sequences / limits.beams,
          .max_slots = limits.max_sequences,
          .vocab_size = loaded_->engine().manifest.vocab_size,
          .tables = {tables_->data(), ir::DType::kI32, tables}};
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

MemoryPlan GraphStepper::memory() const {
  return {.weights_copied = loaded_->weights->copied_bytes(),
          .weights_mapped = loaded_->weights->mapped_bytes(),
          .arena = arena_->size(),
          .kv_pool = kv_.bytes(),
          .step_buffers = 2 * (instances_[0].buffers->bytes() + instances_[1].buffers->bytes() +
                               (encoder_ ? encoder_->bytes() : 0)),
          .history = tables_->size(),
          .sampler = sampler_->bytes() + (beam_sampler_ ? beam_sampler_->bytes() : 0)};
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
  device_.copy_to_device(prompt_table_->data() + slot * prompt_table_bytes_,
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
  instance.shape =
      fill_step_buffers(batch, {options_.limits, slots_, options_.max_seq_len}, *instance.buffers);
  const StepShape& shape = instance.shape;
  const Regime regime = shape.context_sequences > 0 || shape.rows > options_.limits.max_sequences
                            ? Regime::kContext
                            : Regime::kGeneration;
  if (encoder_) encoder_->run(batch);
  process_logits_ = batch.logits_processor;
  run(instance, regime);
  instance.done->record();
  if (batch.logits_sink) deliver_sampled_logits(instance, regime, batch);
  run_target_rows(instance, regime, batch);
  instance.pending = true;  // a launch that throws leaves nothing to collect
}

// Replays the step when one like it was captured, else enqueues its launches one by one.
void GraphStepper::run(Instance& instance, Regime regime) {
  const StepShape& shape = instance.shape;
  const bool capturable = options_.capture && device_.is_asynchronous() && !process_logits_ &&
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
        history(), vector(instance.buffers->address(StepBuffers::kInputIds), shape.rows),
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
  const SamplerInputs inputs{.rows = records,
                             .lists = vector(lists_->data(), lists_->size() / 4),
                             .history = history(),
                             .adjusts = shape.adjusts,
                             .on_adjusted = [&](const ops::Tensor& adjusted) {
                               if (process_logits_) process_on_host(instance, adjusted);
                             }};
  if (beam_sampler_) {
    choose_beams(instance, logits, inputs);
    return;
  }
  sampler_->sample(logits, inputs);
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

void GraphStepper::choose_beams(Instance& instance, const ops::Tensor& logits,
                                const SamplerInputs& inputs) {
  const int requests = instance.shape.beam_requests;
  beam_sampler_->choose(
      logits, inputs,
      matrix(instance.buffers->address(StepBuffers::kBeams), requests, ops::kBeamRowWords));
  std::byte* target = instance.results->data();
  for (const ops::Tensor& tensor :
       {beam_sampler_->chosen(requests), beam_sampler_->parents(requests),
        beam_sampler_->tokens(requests), beam_sampler_->status(requests)}) {
    device_.enqueue_copy_to_host(target, tensor.data, tensor.bytes());
    target += tensor.bytes();
  }
}

int64_t GraphStepper::result_bytes() const {
  if (options_.limits.beams > 1) {
    return int64_t{options_.limits.max_sequences} * (3 * 2 + 1) * 4;
  }
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
  if (beam_sampler_) {
    take_in_beams(instance);
    return;
  }
  const SampledRows found = results(instance);
  for (size_t l = 0; l < static_cast<size_t>(instance.shape.sampled); ++l) {
    const int s = instance.shape.sampled_sequence[l];
    TokenLogprobs& token = instance.result.chosen[static_cast<size_t>(s)];
    if (instance.logprobs >= 0) token = token_logprobs(found, l, instance.logprobs);
    token.id = found.tokens[l];
    if (found.status[l] != ops::kSamplingOk) instance.result.failed_sequence = s;
  }
}

void GraphStepper::take_in_beams(Instance& instance) {
  const auto requests = static_cast<size_t>(instance.shape.beam_requests);
  const size_t places = 2 * static_cast<size_t>(options_.limits.beams);
  const auto* scores = reinterpret_cast<const float*>(instance.results->data());
  const auto* parents = reinterpret_cast<const int32_t*>(scores + requests * places);
  const int32_t* tokens = parents + requests * places;
  const int32_t* status = tokens + requests * places;
  instance.result.beams.resize(instance.result.chosen.size());
  for (size_t g = 0; g < requests; ++g, scores += places, parents += places, tokens += places) {
    const int s = instance.shape.beam_sequence[g];
    instance.result.beams[static_cast<size_t>(s)] = {
        {scores, scores + places}, {parents, parents + places}, {tokens, tokens + places}};
    if (status[g] != ops::kSamplingOk) instance.result.failed_sequence = s;
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
