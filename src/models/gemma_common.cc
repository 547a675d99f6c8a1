#include "models/gemma_common.h"

#include <cmath>

#include "nn/layers.h"

namespace millrace::models {
namespace {

float rounded_to(ir::DType type, float value) {
  if (type == ir::DType::kBF16) return ir::bf16_to_float(ir::float_to_bf16(value));
  if (type == ir::DType::kF16) return ir::f16_to_float(ir::float_to_f16(value));
  return value;
}

}  // namespace

nn::Value gemma_embedding(const nn::Scope& scope, nn::Value ids, int64_t vocab, int64_t dim) {
  const nn::Value rows = nn::embedding(scope, ids, vocab, dim);
  return nn::scale(rows, rounded_to(scope.trace().asked, std::sqrt(static_cast<float>(dim))));
}

}  // namespace millrace::models
