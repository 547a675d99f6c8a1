#include "ops/embedding/embedding.h"
#include "ops/harness/cases.h"

namespace millrace::ops {

std::vector<Case> embedding_cases() {
  using enum ir::DType;
  const auto lookup = [](std::string name, ir::DType table, const char* out, int64_t width) {
    return Case{.name = std::move(name),
                .attrs = to_attrs(Embedding{.dtype = out}),
                .inputs = {ids({9}, 50), normal(table, {50, width})}};
  };
  std::vector<Case> cases;
  for (const ir::DType table : {kF32, kBF16, kF16}) {
    for (const char* out : {"f32", "bf16", "f16"}) {
      cases.push_back(lookup(str(ir::dtype_name(table), " to ", out), table, out, 37));
    }
  }
  cases.push_back(lookup("one column", kBF16, "f32", 1));
  cases.push_back({.name = "positions that start at row 2, first and last row",
                   .attrs = to_attrs(Embedding{.offset = 2}),
                   .inputs = {ints({3}, {0, 47, 3}), normal(kF32, {50, 16})}});
  cases.push_back({.name = "more rows than one thread takes",
                   .inputs = {ids({99}, 300), normal(kBF16, {300, 515})}});
  cases.push_back({.name = "virtual tokens",
                   .attrs = to_attrs(Embedding{.dtype = "bf16"}),
                   .inputs = {ints({5}, {49, 50, 3, 55, 52}), normal(kBF16, {50, 37}),
                              normal(kF32, {2, 3, 37})}});
  cases.push_back({.name = "virtual tokens, whole vectors",
                   .inputs = {ids({40}, 60), normal(kF32, {50, 64}), normal(kF32, {5, 2, 64})}});
  cases.push_back({.name = "no rows", .inputs = {ids({0}, 5), normal(kF32, {5, 8})}});
  cases.push_back({.name = "512 of 4096 x 1024",
                   .inputs = {ids({512}, 4096), cold(normal(kBF16, {4096, 1024}))},
                   .benchmark = true});
  return cases;
}

}  // namespace millrace::ops
