// Checkpoints that do not hold what the model asks for.
#include "compiler/weight_sources.h"

#include <functional>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_folder.h"
#include "compiler/build.h"

namespace millrace::compiler {
namespace {

using Tensors = std::vector<SafetensorsWriter::Tensor>;

void write_weights(const TestFolder& folder, const Tensors& tensors) {
  SafetensorsWriter writer(folder.path("model.safetensors"), tensors);
  for (const SafetensorsWriter::Tensor& t : tensors) {
    const int64_t count =
        std::accumulate(t.shape.begin(), t.shape.end(), int64_t{1}, std::multiplies<>());
    writer.write(std::vector<std::byte>(static_cast<size_t>(count * ir::dtype_size(t.dtype))));
  }
  writer.commit();
}

const char* const kConfig =
    R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12,
        "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 10,
        "max_position_embeddings": 16, "tie_word_embeddings": true})";

// What transformers saves for kConfig.
Tensors llama_tensors() {
  const std::string layer = "model.layers.0.";
  Tensors tensors = {{"model.embed_tokens.weight", ir::DType::kBF16, {10, 8}},
                     {"model.norm.weight", ir::DType::kBF16, {8}},
                     {layer + "input_layernorm.weight", ir::DType::kBF16, {8}},
                     {layer + "post_attention_layernorm.weight", ir::DType::kBF16, {8}},
                     {layer + "mlp.gate_proj.weight", ir::DType::kBF16, {12, 8}},
                     {layer + "mlp.up_proj.weight", ir::DType::kBF16, {12, 8}},
                     {layer + "mlp.down_proj.weight", ir::DType::kBF16, {8, 12}}};
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    tensors.push_back({str(layer, "self_attn.", name, ".weight"), ir::DType::kBF16, {8, 8}});
  }
  return tensors;
}

engine::Engine build(const TestFolder& folder, BuildReport* report) {
  const std::unique_ptr<device::Device> device = device::make_cpu_device(1);
  const HfConfig config = HfConfig::parse(kConfig, folder.path("config.json"));
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  BuildOptions options;
  options.max_batch_size = 2;
  options.max_num_tokens = 4;
  options.profile = false;
  return build_engine({.model = "small", .config = config, .checkpoint = &checkpoint}, options,
                      *device, report);
}

std::string refusal(const Tensors& tensors) {
  const TestFolder folder;
  write_weights(folder, tensors);
  BuildReport report;
  const std::string what = bad_input_of([&] { build(folder, &report); });
  EXPECT_NE(what.find("model.safetensors"), std::string::npos) << what;
  return what;
}

TEST(CheckpointWeights, ListsEveryTensorOnce) {
  const TestFolder folder;
  write_weights(folder, llama_tensors());
  BuildReport report;
  const engine::Engine engine = build(folder, &report);
  EXPECT_TRUE(report.notes.empty());
  EXPECT_EQ(engine.manifest.dtype, "bf16");  // `auto` follows the checkpoint
  ASSERT_EQ(engine.files.size(), 1u);
  EXPECT_EQ(engine.files[0].path, folder.path("model.safetensors"));

  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  std::multiset<std::string> listed;
  int64_t stacked = 0;
  for (const engine::Weight& weight : engine.weights) {
    int64_t rows = 0;
    for (const engine::WeightSlice& slice : weight.slices) {
      listed.insert(slice.tensor);
      const CheckpointTensor& tensor = checkpoint.get(slice.tensor);
      EXPECT_EQ(slice.offset, tensor.offset);
      EXPECT_EQ(slice.rows * slice.row_bytes, static_cast<int64_t>(tensor.bytes.size()));
      rows += slice.rows;
    }
    EXPECT_EQ(rows, weight.shape[0]);
    stacked += weight.slices.size() > 1 ? 1 : 0;
  }
  EXPECT_EQ(stacked, 2);  // Q, K and V; gate and up
  std::multiset<std::string> stored;
  for (const CheckpointTensor& tensor : checkpoint.tensors())
    stored.insert(tensor.name);
  EXPECT_EQ(listed, stored);
}

/// A stacked weight of row runs, as GPT-NeoX stores Q, K and V: some of its 8.
engine::Weight rows_of_fused(const Checkpoint* checkpoint) {
  engine::Engine engine;
  ir::Attrs attrs;
  attrs.set("name", "fused@0,1,4,2,8|fused@2,2,4,2,8");
  attrs.set("rows", std::vector<double>{2, 4});
  engine.graph.add(std::string(ir::kWeightOp), {}, {ir::DType::kF32, {6, 3}}, std::move(attrs));
  list_weights(checkpoint, engine);
  return engine.weights.at(0);
}

TEST(CheckpointWeights, ListsRowsOfATensor) {
  const TestFolder folder;
  write_weights(folder, {{"fused", ir::DType::kF32, {8, 3}}});
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  const engine::Weight stored = rows_of_fused(&checkpoint), generated = rows_of_fused(nullptr);
  const int64_t first_rows[] = {0, 4, 2, 6}, counts[] = {1, 1, 2, 2};
  ASSERT_EQ(stored.slices.size(), 4u);
  ASSERT_EQ(generated.slices.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    for (const engine::Weight* weight : {&stored, &generated}) {
      EXPECT_EQ(weight->slices[i].tensor, "fused");
      EXPECT_EQ(weight->slices[i].first_row, first_rows[i]);
      EXPECT_EQ(weight->slices[i].rows, counts[i]);
      EXPECT_EQ(weight->slices[i].tensor_rows, 8);
    }
    EXPECT_EQ(stored.slices[i].offset, checkpoint.get("fused").offset + first_rows[i] * 12);
    EXPECT_EQ(stored.slices[i].row_bytes, 12);
  }
}

TEST(CheckpointWeights, NamesEachMissingTensor) {
  const Tensors all = llama_tensors();
  for (size_t i = 0; i < all.size(); ++i) {
    Tensors rest = all;
    rest.erase(rest.begin() + static_cast<int64_t>(i));
    const TestFolder folder;
    write_weights(folder, rest);
    BuildReport report;
    const std::string what = bad_input_of([&] { build(folder, &report); });
    EXPECT_NE(what.find(all[i].name), std::string::npos) << what;
  }
}

TEST(CheckpointWeights, NamesEachTensorOfAnotherShape) {
  const Tensors all = llama_tensors();
  for (size_t i = 0; i < all.size(); ++i) {
    Tensors wrong = all;
    wrong[i].shape.back() += 1;
    const std::string what = refusal(wrong);
    EXPECT_NE(what.find(str("tensor ", all[i].name, " has shape [", join(wrong[i].shape, ", "),
                            "], config.json asks for [", join(all[i].shape, ", "), "]")),
              std::string::npos)
        << what;
  }
  // As many elements in another order are not the same tensor.
  Tensors turned = all;
  std::swap(turned[4].shape[0], turned[4].shape[1]);
  EXPECT_NE(refusal(turned).find("has shape [8, 12]"), std::string::npos);
}

TEST(CheckpointWeights, RefusesTensorsItDoesNotKnow) {
  Tensors more = llama_tensors();
  more.push_back({"model.layers.1.mlp.up_proj.weight", ir::DType::kBF16, {12, 8}});
  EXPECT_NE(refusal(more).find("tensor model.layers.1.mlp.up_proj.weight is not part of"),
            std::string::npos);
  // A known name must match as a whole.
  more.back() = {"model.layers.0.self_attn.rotary_emb.inv_freq.old", ir::DType::kF32, {2}};
  EXPECT_NE(refusal(more).find("inv_freq.old is not part of"), std::string::npos);
}

TEST(CheckpointWeights, SkipsWhatTheFamilyDoesNotNeed) {
  Tensors more = llama_tensors();
  more.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", ir::DType::kF32, {2}});
  const TestFolder folder;
  write_weights(folder, more);
  BuildReport report;
  build(folder, &report);
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_NE(report.notes[0].find("1 tensors are not needed"), std::string::npos);
  EXPECT_NE(report.notes[0].find("inv_freq"), std::string::npos);
}

TEST(CheckpointWeights, RefusesTypesThatAreNoWeights) {
  for (const ir::DType type : {ir::DType::kI32, ir::DType::kBool, ir::DType::kF8E4M3}) {
    Tensors wrong = llama_tensors();
    wrong[4].dtype = type;
    const std::string what = refusal(wrong);
    EXPECT_NE(what.find(str("has type ", ir::safetensors_dtype_name(type))), std::string::npos)
        << what;
  }
}

TEST(KeptType, NarrowsMatricesOnly) {
  using ir::DType;
  struct Row {
    DType stored;
    size_t rank;
    ComputeType compute;
    DType kept;
  };
  const Row rows[] = {
      {DType::kF32, 2, ComputeType::kFp32, DType::kF32},
      {DType::kF64, 2, ComputeType::kFp32, DType::kF32},
      {DType::kBF16, 2, ComputeType::kFp32, DType::kBF16},
      {DType::kF32, 2, ComputeType::kBf16, DType::kBF16},
      {DType::kF16, 2, ComputeType::kBf16, DType::kBF16},
      {DType::kF32, 2, ComputeType::kFp16, DType::kF16},
      {DType::kF32, 1, ComputeType::kBf16, DType::kF32},
      {DType::kF16, 1, ComputeType::kBf16, DType::kF16},
      {DType::kF64, 1, ComputeType::kFp16, DType::kF32},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(kept_type(row.stored, row.rank, row.compute), row.kept)
        << ir::dtype_name(row.stored) << " " << row.rank << " " << compute_type_name(row.compute);
  }
}

}  // namespace
}  // namespace millrace::compiler
