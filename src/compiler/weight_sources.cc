#include "compiler/weight_sources.h"

#include <regex>
#include <sstream>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "engine/weight_order.h"

namespace millrace::compiler {
namespace {

std::vector<std::string> split(const std::string& names) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t bar = names.find('|'); bar != std::string::npos; bar = names.find('|', begin)) {
    parts.push_back(names.substr(begin, bar - begin));
    begin = bar + 1;
  }
  parts.push_back(names.substr(begin));
  return parts;
}

/// A tensor or some of its rows (nn::Scope::weight_rows), `rows` in all.
struct Part {
  std::string tensor;
  int64_t first = 0, count = 0, stride = 0, pieces = 1, tensor_rows = 0;
};

Part parse_part(const std::string& text, int64_t rows) {
  const size_t at = text.rfind('@');
  if (at == std::string::npos) return {.tensor = text, .count = rows, .tensor_rows = rows};
  Part part{.tensor = text.substr(0, at)};
  std::istringstream numbers(text.substr(at + 1));
  char comma = 0;
  numbers >> part.first >> comma >> part.count >> comma >> part.stride >> comma >> part.pieces >>
      comma >> part.tensor_rows;
  CHECK(numbers && part.count * part.pieces == rows &&
            part.first + (part.pieces - 1) * part.stride + part.count <= part.tensor_rows,
        "weight ", text, " of ", rows, " rows");
  return part;
}

/// `checkpoint` is null for generated weights.
void add_slices(const Checkpoint* checkpoint, const Part& part, engine::Weight* weight) {
  for (int64_t i = 0; i < part.pieces; ++i) {
    engine::WeightSlice slice{.rows = part.count,
                              .tensor = part.tensor,
                              .first_row = part.first + i * part.stride,
                              .tensor_rows = part.tensor_rows};
    if (checkpoint != nullptr) {
      const CheckpointTensor& tensor = checkpoint->get(part.tensor);
      slice.row_bytes = tensor.count() / part.tensor_rows * ir::dtype_size(tensor.dtype);
      slice.file = tensor.file_index;
      slice.offset = tensor.offset + slice.first_row * slice.row_bytes;
      slice.dtype = tensor.dtype;
    }
    weight->slices.push_back(std::move(slice));
  }
}

}  // namespace

ir::DType kept_type(ir::DType stored, size_t rank, ComputeType compute) {
  const bool narrow_already = ir::dtype_size(stored) <= 2;
  switch (compute) {
    case ComputeType::kAuto:
    case ComputeType::kFp32:
      // Widening is exact, so narrow weights stay as they are stored and are widened as they are
      // read.
      return narrow_already ? stored : ir::DType::kF32;
    case ComputeType::kBf16:
      if (rank < 2) return narrow_already ? stored : ir::DType::kF32;
      return ir::DType::kBF16;
    case ComputeType::kFp16:
      if (rank < 2) return narrow_already ? stored : ir::DType::kF32;
      return ir::DType::kF16;
  }
  return stored;
}

ir::DType CheckpointWeights::declare(const std::string& name,
                                     const std::vector<int64_t>& stored_shape) {
  const CheckpointTensor& tensor = checkpoint_.get(name);
  const std::string where = str(checkpoint_.files()[static_cast<size_t>(tensor.file_index)].path);
  if (tensor.shape != stored_shape) {
    throw_bad_input(str("tensor ", name, " has shape [", join(tensor.shape, ", "),
                        "], config.json asks for [", join(stored_shape, ", "), "]"),
                    where, "use the config.json that belongs to these weights");
  }
  if (!ir::is_float(tensor.dtype) || ir::dtype_size(tensor.dtype) < 2) {
    throw_bad_input(str("tensor ", name, " has type ", ir::safetensors_dtype_name(tensor.dtype),
                        ", which is not supported for a weight"),
                    where, "use a checkpoint in F32, BF16 or F16");
  }
  used_.insert(name);
  return kept_type(tensor.dtype, stored_shape.size(), compute_);
}

void CheckpointWeights::check_all_used(const std::vector<std::string_view>& ignored,
                                       std::vector<std::string>* skipped) const {
  std::vector<std::regex> patterns;
  for (const std::string_view text : ignored)
    patterns.emplace_back(std::string(text));
  for (const CheckpointTensor& tensor : checkpoint_.tensors()) {
    if (used_.contains(tensor.name)) continue;
    bool known = false;
    for (const std::regex& pattern : patterns) {
      known = known || std::regex_match(tensor.name, pattern);
    }
    if (!known) {
      throw_bad_input(str("tensor ", tensor.name, " is not part of the architecture"),
                      checkpoint_.files()[static_cast<size_t>(tensor.file_index)].path,
                      "check that config.json names the right architecture");
    }
    skipped->push_back(tensor.name);
  }
}

void list_weights(const Checkpoint* checkpoint, engine::Engine& engine) {
  engine.weights.clear();
  engine.manifest.parameters = 0;
  for (const auto& [graph, id] : engine::weight_order(engine).nodes) {
    const ir::Node& node = graph->node(id);
    const ir::TensorType& type = graph->type(node.outputs[0]);
    engine::Weight weight;
    weight.name = std::get<std::string>(*node.attrs.find("name"));
    weight.dtype = type.dtype;
    weight.transposed = node.attrs.find("transposed") != nullptr;
    weight.unit_rows = node.attrs.find("unit_rows") != nullptr;
    int64_t elements = 1;
    for (const ir::Dim& dim : type.shape) {
      weight.shape.push_back(dim.value());
      elements *= dim.value();
    }
    engine.manifest.parameters += elements;
    const ir::AttrValue* rows = node.attrs.find("rows");
    const std::vector<std::string> names = split(weight.name);
    const bool is_matrix = weight.transposed && weight.shape.size() == 2;  // stored [K, N]
    const int64_t stored_rows = weight.shape[is_matrix ? 1 : 0];
    for (size_t i = 0; i < names.size(); ++i) {
      const auto count = rows == nullptr
                             ? stored_rows
                             : static_cast<int64_t>(std::get<std::vector<double>>(*rows).at(i));
      add_slices(checkpoint, parse_part(names[i], count), &weight);
    }
    engine.weights.push_back(std::move(weight));
  }
  if (checkpoint == nullptr) return;
  for (const CheckpointFile& file : checkpoint->files()) {
    engine.files.push_back({.path = file.path,
                            .size = file.size,
                            .mtime_ns = file.mtime_ns,
                            .header_hash = to_hex(file.header_hash)});
  }
}

}  // namespace millrace::compiler
