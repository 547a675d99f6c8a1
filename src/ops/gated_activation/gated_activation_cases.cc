#include "ops/gated_activation/gated_activation.h"
#include "ops/harness/cases.h"

namespace millrace::ops {

std::vector<Case> gated_activation_cases() {
  using enum ir::DType;
  std::vector<Case> cases;
  for (const char* kind : {"silu", "gelu", "gelu_pytorch_tanh", "relu", "relu2", "quick_gelu"}) {
    cases.push_back({.name = str(kind, ", width that no vector divides"),
                     .attrs = to_attrs(GatedActivation{.kind = kind}),
                     .inputs = {normal(kF32, {5, int64_t{2} * 45}, 2)}});
    for (const ir::DType dtype : {kBF16, kF16}) {
      cases.push_back({.name = str(kind, ", ", ir::dtype_name(dtype), ", more than a block takes"),
                       .attrs = to_attrs(GatedActivation{.kind = kind}),
                       .inputs = {normal(dtype, {3, int64_t{2} * 2312}, 4)}});
    }
  }
  const auto silu = [&](const char* name, ir::DType dtype, int64_t rows, int64_t width) {
    return Case{.name = name, .inputs = {normal(dtype, {rows, 2 * width})}};
  };
  cases.push_back(silu("novelist-14m", kF32, 3, 1024));
  cases.push_back(silu("one column", kF32, 3, 1));
  cases.push_back(silu("more rows than one thread takes", kF32, 35, 1111));
  cases.push_back(silu("bf16", kBF16, 3, 50));
  cases.push_back(silu("f16", kF16, 3, 50));
  cases.push_back(silu("no rows", kF32, 0, 8));
  cases.push_back({.name = "two experts a row", .inputs = {normal(kF32, {5, 2, 58})}});
  for (const int64_t rows : {int64_t{1}, int64_t{512}}) {
    cases.push_back(silu(rows == 1 ? "1 x 8192" : "512 x 8192", kF32, rows, 8192));
    cases.back().benchmark = true;
  }
  for (const int64_t rows : {int64_t{128}, int64_t{8192}}) {  // of Llama 3.1 8B
    cases.push_back(
        silu(rows == 128 ? "bf16, 128 x 14336" : "bf16, 8192 x 14336", kBF16, rows, 14336));
    cases.back().benchmark = true;
  }
  return cases;
}

}  // namespace millrace::ops
