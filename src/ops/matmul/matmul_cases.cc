#include "ops/harness/cases.h"
#include "ops/matmul/matmul.h"

namespace millrace::ops {

std::vector<Case> matmul_cases() {
  using enum ir::DType;
  const auto inputs = [](ir::DType weight, int64_t rows, int64_t k, int64_t n) {
    return std::vector<InputSpec>{normal(kF32, {rows, k}), cold(normal(weight, {n, k}, 0.05))};
  };
  const ir::Attrs attrs = to_attrs(Matmul{});
  return {
      {.name = "one row", .attrs = attrs, .inputs = inputs(kBF16, 1, 384, 384)},
      {.name = "K that no vector divides", .attrs = attrs, .inputs = inputs(kF32, 5, 37, 29)},
      {.name = "a prompt", .attrs = attrs, .inputs = inputs(kBF16, 70, 100, 50)},
  };
}

}  // namespace millrace::ops
