#include "compiler/options.h"

#include <utility>

#include "base/str.h"

namespace millrace::compiler {
namespace {

constexpr std::pair<std::string_view, ir::DType> kKvTypes[] = {{"fp32", ir::DType::kF32},
                                                               {"bf16", ir::DType::kBF16},
                                                               {"fp16", ir::DType::kF16},
                                                               {"fp8", ir::DType::kF8E4M3},
                                                               {"int8", ir::DType::kI8}};

}  // namespace

std::optional<ComputeType> parse_compute_type(std::string_view name) {
  if (name == "auto") return ComputeType::kAuto;
  if (name == "fp32") return ComputeType::kFp32;
  if (name == "bf16") return ComputeType::kBf16;
  if (name == "fp16") return ComputeType::kFp16;
  return std::nullopt;
}

const char* compute_type_name(ComputeType type) {
  switch (type) {
    case ComputeType::kAuto:
      return "auto";
    case ComputeType::kFp32:
      return "fp32";
    case ComputeType::kBf16:
      return "bf16";
    case ComputeType::kFp16:
      return "fp16";
  }
  return "auto";
}

std::optional<ir::DType> parse_kv_type(std::string_view name) {
  for (const auto& [known, type] : kKvTypes) {
    if (known == name) return type;
  }
  return std::nullopt;
}

std::string_view kv_type_name(ir::DType type) {
  for (const auto& [name, known] : kKvTypes) {
    if (known == type) return name;
  }
  return ir::dtype_name(type);
}

std::string BuildOptions::canonical_text() const {
  std::string text = str("dtype=", compute_type_name(dtype),
                         " kv_dtype=", kv_dtype ? kv_type_name(*kv_dtype) : "auto",
                         " max_batch_size=", max_batch_size, " max_seq_len=", max_seq_len,
                         " max_num_tokens=", max_num_tokens, " max_beam_width=", max_beam_width);
  if (max_prompt_table_rows > 0) text += str(" max_prompt_table_rows=", max_prompt_table_rows);
  if (window > 0) text += str(" window=", window, " sink_tokens=", sink_tokens);
  if (dummy_seed) text += str(" dummy_weights=", *dummy_seed);
  if (!disabled_passes.empty()) text += str(" disabled=", join(disabled_passes, ","));
  if (deterministic) text += " deterministic";
  if (embeddings) text += " embeddings";
  if (multi_block > 0) text += str(" multi_block=", multi_block);
  if (!profile) text += " untimed";
  return text;
}

}  // namespace millrace::compiler
