#include "compiler/trace_model.h"

#include <algorithm>
#include <cctype>
#include <memory>

#include "base/error.h"
#include "compiler/weight_sources.h"
#include "models/generation_inputs.h"
#include "models/model.h"
#include "nn/layers.h"
#include "ops/attention/attention.h"

namespace millrace::compiler {
namespace {

// `auto`: the checkpoint's own type. bf16 and fp16 weights are multiplied with float activations on
// the CPU, so this is the fastest choice that keeps the accuracy the weights have.
ComputeType resolve_compute(const BuildInput& input, ComputeType asked) {
  if (asked != ComputeType::kAuto) return asked;
  std::optional<ir::DType> stored = input.config.dtype();
  if (input.checkpoint != nullptr && !input.checkpoint->tensors().empty()) {
    const auto tensors = input.checkpoint->tensors();
    const auto largest = std::max_element(
        tensors.begin(), tensors.end(),
        [](const CheckpointTensor& a, const CheckpointTensor& b) { return a.count() < b.count(); });
    stored = largest->dtype;
  }
  if (stored == ir::DType::kBF16) return ComputeType::kBf16;
  if (stored == ir::DType::kF16) return ComputeType::kFp16;
  return ComputeType::kFp32;
}

ir::DType storage_type(ComputeType type) {
  switch (type) {
    case ComputeType::kBf16:
      return ir::DType::kBF16;
    case ComputeType::kFp16:
      return ir::DType::kF16;
    default:
      return ir::DType::kF32;
  }
}

// A GPU's tensor cores multiply values of the weights' type; on the CPU float is as fast.
ir::DType activation_type(device::Kind device, ComputeType compute) {
  return device == device::Kind::kCpu ? ir::DType::kF32 : storage_type(compute);
}

// An encoder sees its input as a whole: a step must hold it.
void resolve_encoder(const BuildInput& input, const models::Model& model, ResolvedLimits* limits) {
  if (model.is_encoder()) {
    limits->kind = engine::ModelKind::kEncoder;
    limits->max_seq_len = std::min(limits->max_seq_len, limits->max_num_tokens);
    return;
  }
  const auto encoder = model.encoder();
  if (!encoder) return;
  limits->kind = engine::ModelKind::kEncoderDecoder;
  limits->encoder_features = encoder->features;
  limits->max_encoder_len = std::min(encoder->max_rows, limits->max_num_tokens);
  if (encoder->features > 0 && limits->max_encoder_len < encoder->max_rows) {
    throw_bad_input(str("--max-num-tokens ", limits->max_num_tokens, " is less than the ",
                        encoder->max_rows, " rows that the encoder makes of every input"),
                    input.model, "raise it");
  }
}

ResolvedLimits resolve_limits(const BuildInput& input, const BuildOptions& options,
                              const models::Model& model) {
  ResolvedLimits limits;
  limits.compute = resolve_compute(input, options.dtype);
  limits.kv_dtype = options.kv_dtype.value_or(storage_type(limits.compute));
  limits.vocab_size = model.vocab_size();
  limits.max_positions = model.max_positions();
  limits.max_seq_len = options.max_seq_len > 0 ? options.max_seq_len : model.max_positions();
  if (limits.max_seq_len > model.max_positions()) {
    throw_bad_input(str("--max-seq-len ", limits.max_seq_len, " exceeds the model's ",
                        model.max_positions(), " positions"),
                    input.model, "lower it");
  }
  if (options.max_batch_size < 1 || options.max_num_tokens < 1 || options.max_beam_width < 1) {
    throw_bad_input("limits must be positive", input.model,
                    "give at least 1 for --max-batch-size and --max-num-tokens");
  }
  limits.max_sequences = options.max_batch_size * options.max_beam_width;
  // Every sequence of a full batch has a row of its own in a generation step.
  limits.max_num_tokens = std::max(options.max_num_tokens, limits.max_sequences);
  // Numbers of rows and of history entries are 32-bit on the device.
  constexpr int64_t kMaxEntries = int64_t{1} << 31;
  if (limits.max_sequences >= kMaxEntries / limits.max_seq_len ||
      limits.max_num_tokens >= int64_t{1} << 24) {
    throw_bad_input(str("a batch of ", limits.max_sequences, " sequences of ", limits.max_seq_len,
                        " tokens is too large"),
                    input.model, "lower --max-batch-size, --max-seq-len or --max-num-tokens");
  }
  resolve_encoder(input, model, &limits);
  return limits;
}

std::string graph_name(const HfConfig& config) {
  std::string name = config.architecture();
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0 && c != '_'; },
      '_');
  return name;
}

// Refuses what the kind of model cannot do.
void check_use(const models::Model& model, const BuildInput& input, const BuildOptions& options) {
  if (!options.embeddings && !model.has_head()) {
    input.config.fail("architectures",
                      str("is ", input.config.architecture(), ", which has no head"),
                      "use it with `millrace embed`");
  }
  if (options.embeddings && model.encoder()) {
    input.config.fail("architectures", "names a model with an encoder and a decoder",
                      "use an encoder or a decoder for embeddings");
  }
  if ((model.encoder() || model.is_encoder()) && options.window > 0) {
    throw_bad_input("--attention-window is for decoders alone", input.model, "leave it out");
  }
}

// Latent attention and attention over an encoder's output read floats only.
void check_kv_storage(const ir::Graph& graph, const ResolvedLimits& limits,
                      const BuildInput& input) {
  if (ir::dtype_size(limits.kv_dtype) > 1) return;
  for (const ir::NodeId id : graph.order()) {
    const ir::Node& node = graph.node(id);
    const bool has_cache = std::any_of(node.inputs.begin(), node.inputs.end(), [&](auto value) {
      return graph.type(value).dtype == ir::DType::kState;
    });
    if (!has_cache || node.op == ops::Attention::kName) continue;
    throw_bad_input(str("--kv-dtype ", kv_type_name(limits.kv_dtype),
                        " is not supported for models with ", node.op),
                    input.model, "use fp32, bf16 or fp16");
  }
}

// The encoder's own graph; `decoder` is the trace of the other one.
void trace_encoder(const models::Model& model, const models::InputLimits& limits,
                   const nn::Trace& decoder, TracedModel* traced) {
  ir::Graph& graph = traced->encoder.emplace(str(traced->graph.name(), "_encoder"));
  nn::Trace trace{graph, decoder.weights, decoder.activation, decoder.asked};
  const nn::EncoderInputs inputs =
      models::prepare_encoder_inputs(trace, model.kv_layers(), *model.encoder(), limits);
  const std::vector<nn::Value> caches = model.forward_encoder(trace, inputs);
  for (size_t i = 0; i < caches.size(); ++i)
    graph.add_output(str("cross_kv_cache.", i), caches[i].id);
  graph.set_scope("");
}

}  // namespace

TracedModel trace_model(const BuildInput& input, const BuildOptions& options, device::Kind device,
                        BuildReport* report) {
  if (input.config.has("quantization_config")) {
    input.config.fail("quantization_config", "is not supported yet",
                      "use the checkpoint in BF16, F16 or F32");
  }
  const models::Architecture& architecture = models::find_architecture(input.config);
  const std::unique_ptr<models::Model> model = architecture.create(
      input.config, {.window = options.window, .sink_tokens = options.sink_tokens});

  check_use(*model, input, options);
  TracedModel traced;
  traced.graph.set_name(graph_name(input.config));
  traced.limits = resolve_limits(input, options, *model);
  std::unique_ptr<nn::WeightSource> weights;
  if (input.checkpoint != nullptr) {
    weights = std::make_unique<CheckpointWeights>(*input.checkpoint, traced.limits.compute);
  } else {
    weights = std::make_unique<DummyWeights>(traced.limits.compute);
  }
  nn::Trace trace{traced.graph, *weights, activation_type(device, traced.limits.compute),
                  storage_type(traced.limits.compute)};
  const models::InputLimits limits{.max_num_tokens = traced.limits.max_num_tokens,
                                   .max_sequences = traced.limits.max_sequences,
                                   .max_seq_len = traced.limits.max_seq_len,
                                   .max_encoder_len = traced.limits.max_encoder_len,
                                   .max_beam_width = options.max_beam_width,
                                   .max_prompt_table_rows = options.max_prompt_table_rows};
  const nn::StepInputs step = model->prepare_inputs(trace, limits);
  const nn::Value logits = model->forward(trace, step);
  const nn::Value rows = options.embeddings ? trace.hidden : logits;
  traced.graph.add_output(options.embeddings ? "hidden" : "logits",
                          nn::gather_rows(rows, step.last_token_ids).id);
  traced.graph.set_scope("");
  check_kv_storage(traced.graph, traced.limits, input);
  if (model->encoder()) trace_encoder(*model, limits, trace, &traced);

  if (input.checkpoint != nullptr) {
    std::vector<std::string> skipped;
    static_cast<CheckpointWeights&>(*weights).check_all_used(architecture.ignored_tensors,
                                                             &skipped);
    if (!skipped.empty()) {
      report->notes.push_back(str(skipped.size(), " tensors are not needed and were skipped: ",
                                  skipped[0], skipped.size() > 1 ? ", ..." : ""));
    }
  }
  return traced;
}

}  // namespace millrace::compiler
