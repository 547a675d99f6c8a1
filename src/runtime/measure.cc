#include "runtime/measure.h"

#include <algorithm>

#include "base/error.h"
#include "runtime/encoder_input.h"

namespace millrace::runtime {
namespace {

constexpr int kRuns = 5;
constexpr int kTokensPerBlock = 64;

std::unique_ptr<GraphStepper> make_stepper(const std::shared_ptr<const LoadedEngine>& engine,
                                           int sequences, int length) {
  const engine::Manifest& m = engine->engine().manifest;
  StepperOptions options;
  options.max_seq_len = length;
  options.kv_dtype = *ir::parse_dtype(m.kv_dtype);
  const int blocks = (length + kTokensPerBlock - 1) / kTokensPerBlock;
  for (size_t g = 0; g < engine->engine().kv_groups.size(); ++g) {
    options.kv.push_back({int64_t{sequences} * blocks, kTokensPerBlock});
  }
  options.limits = {.max_sequences = sequences,
                    .max_num_tokens = static_cast<int>(m.max_num_tokens),
                    .max_logit_rows = std::max(1, sequences),
                    .max_blocks = blocks,
                    .num_groups = static_cast<int>(engine->engine().kv_groups.size())};
  return std::make_unique<GraphStepper>(engine, options);
}

// A step as the options describe it; all sequences are alike.
struct StepSize {
  int sequences = 0;
  int tokens = 0;  // of a sequence, in this step
  int length = 0;  // of a sequence, after this step
  int blocks() const { return (length + kTokensPerBlock - 1) / kTokensPerBlock; }
};

StepSize step_size(const MeasureOptions& options) {
  if (options.encoder) return {1, 1, options.rows};  // blocks for the input and a first token
  const bool context = options.regime == Regime::kContext;
  const int tokens = context ? options.rows : 1;
  return {context ? 1 : options.rows, tokens, options.past_length + tokens};
}

// What the encoder is to read: nothing unless it is looked at.
EncoderInput encoder_input(const engine::Manifest& manifest, const MeasureOptions& options) {
  const auto rows = static_cast<size_t>(options.rows);
  if (!options.encoder) return {};
  if (manifest.encoder_features == 0) return {.ids = std::vector<int32_t>(rows, 1), .features = {}};
  const auto features = static_cast<size_t>(manifest.encoder_features);
  return {.ids = {}, .features = std::vector<float>(2 * rows * features, 0.0F)};
}

// Runs the step and returns the times of each launch, none for launches that such a step leaves
// out.
std::vector<std::vector<double>> run_step(GraphStepper& stepper, const MeasureOptions& options,
                                          size_t groups, device::Device& device) {
  Program& program = stepper.program(options.encoder);
  std::vector<std::vector<double>> times(static_cast<size_t>(program.num_launches()));
  std::vector<Program::Observation> observations;
  program.observations = &observations;
  const StepSize size = step_size(options);
  const bool context = options.encoder || options.regime == Regime::kContext;
  const std::vector<int32_t> ids(static_cast<size_t>(size.tokens), 1);
  // An input as long as the output: its blocks are those of the other groups.
  const auto encoder_length =
      static_cast<int>(std::min<int64_t>(size.length, stepper.engine().manifest.max_encoder_len));
  std::vector<std::vector<BlockList>> blocks(static_cast<size_t>(size.sequences));
  Batch batch;
  for (int s = 0; s < size.sequences; ++s) {
    BlockList list;
    for (int b = 0; b < size.blocks(); ++b)
      list.push_back(s * size.blocks() + b);
    blocks[static_cast<size_t>(s)].assign(groups, list);
    SequenceOptions sequence;
    sequence.prompt_length = context ? size.tokens : options.past_length;
    stepper.begin_sequence(s, sequence);
    batch.sequences.push_back({.slot = s,
                               .is_context = context,
                               .past_length = options.past_length,
                               .tokens = ids,
                               .blocks = blocks[static_cast<size_t>(s)],
                               .sample = true,
                               .targets = {},
                               .encoder_length = encoder_length});
  }
  const EncoderInput input = encoder_input(stepper.engine().manifest, options);
  batch.sequences[0].encoder_ids = input.ids;
  batch.sequences[0].encoder_features = input.features;
  for (int run = 0; run < (options.measure ? kRuns + 1 : 1); ++run) {
    if (run == 1) {  // the first run warmed up
      for (auto& t : times)
        t.clear();
    }
    observations.clear();
    // Launches that wait in the queue run without the host's pauses between them.
    const auto hold = run == 0 ? nullptr : device.hold();
    stepper.launch(batch);
    if (hold) hold->release();
    stepper.collect();
    for (const Program::Observation& o : observations) {
      times[static_cast<size_t>(o.launch)].push_back(1e6 * o.end->seconds_since(*o.begin));
    }
  }
  program.observations = nullptr;
  return times;
}

// By launch: how many behind it go as one with it in a step that is not measured.
std::vector<int> with_next(const Program& program, const ir::Bindings& sizes,
                           const MeasureOptions& options) {
  std::vector<int> counts(static_cast<size_t>(program.num_launches()));
  const bool context = options.encoder || options.regime == Regime::kContext;
  const int head = options.encoder ? program.num_launches() : program.planned().head_begin;
  for (const auto& [begin, end] : {std::pair{0, head}, std::pair{head, program.num_launches()}}) {
    const Program::Range range{
        .begin = begin, .end = end, .context = context, .generation = !context};
    for (const Program::Group& group : program.groups(sizes, range))
      counts[static_cast<size_t>(group.launches[0])] = static_cast<int>(group.count) - 1;
  }
  return counts;
}

}  // namespace

std::vector<MeasuredLaunch> measure_step(const std::shared_ptr<const LoadedEngine>& engine,
                                         const MeasureOptions& options) {
  const StepSize size = step_size(options);
  const engine::Manifest& manifest = engine->engine().manifest;
  const int64_t limit = options.encoder ? manifest.max_encoder_len : manifest.max_seq_len;
  if (size.length > limit) {
    throw_bad_input(str(size.length, " tokens exceed the engine's sequences of ", limit),
                    manifest.model, "choose fewer");
  }
  const std::unique_ptr<GraphStepper> stepper = make_stepper(engine, size.sequences, size.length);
  std::vector<std::vector<double>> times =
      run_step(*stepper, options, engine->engine().kv_groups.size(), *engine->device);

  ir::Bindings sizes;
  for (const auto& [name, value] :
       {std::pair<const char*, int64_t>{
            "T", options.encoder ? options.rows : int64_t{size.sequences} * size.tokens},
        {"F", int64_t{2} * options.rows},
        {"S", size.sequences},
        {"L", size.sequences},
        {"R", size.sequences},
        {"N", size.length},
        {"M", size.blocks()}}) {
    sizes.set(name, value);
  }
  const Program& program = stepper->program(options.encoder);
  const std::vector<int> with = with_next(program, sizes, options);
  std::vector<MeasuredLaunch> result;
  for (size_t i = 0; i < times.size(); ++i) {
    if (times[i].empty()) continue;
    Program::Description d = program.describe(static_cast<int>(i), sizes);
    MeasuredLaunch m{d.op->name, d.tactic->name, d.scope, {}, d.in, d.out, d.cost, 0, with[i]};
    ops::Launch launch;
    launch.in = m.in;
    launch.out = m.out;
    launch.attributes = d.attributes.get();
    for (const ops::Tactic& tactic : d.op->tactics) {
      if (&tactic == d.tactic || tactic.device != engine->device->properties().kind) continue;
      const std::string why =
          tactic.why_not == nullptr ? "" : tactic.why_not(launch, engine->device->properties());
      const char* reason = tactic.run_chain != nullptr ? "slower, or no neighbour that it runs"
                                                       : "slower, or later in preference";
      m.why_not.emplace_back(tactic.name, why.empty() ? reason : why);
    }
    if (options.measure) {
      std::nth_element(times[i].begin(), times[i].begin() + kRuns / 2, times[i].end());
      m.time_us = times[i][kRuns / 2];
    }
    result.push_back(std::move(m));
  }
  return result;
}

}  // namespace millrace::runtime
