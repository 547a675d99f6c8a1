#include "compiler/options.h"

#include "base/str.h"

namespace millrace::compiler {

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
  if (name == "fp32") return ir::DType::kF32;
  if (name == "bf16") return ir::DType::kBF16;
  if (name == "fp16") return ir::DType::kF16;
  if (name == "fp8") return ir::DType::kF8E4M3;
  if (name == "int8") return ir::DType::kI8;
  return std::nullopt;
}

std::string BuildOptions::canonical_text() const {
  std::string text = str("dtype=", compute_type_name(dtype),
                         " kv_dtype=", kv_dtype ? ir::dtype_name(*kv_dtype) : "auto",
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
