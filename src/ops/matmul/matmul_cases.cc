#include <cmath>
#include <string_view>

#include "base/str.h"
#include "ops/harness/cases.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_cases_fused.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

/// x [T, K] and weight [N, K], whose outputs are about 1.
std::vector<InputSpec> inputs(ir::DType weight, int64_t rows, int64_t cols, int64_t depth) {
  return {normal(kF32, {rows, depth}),
          cold(normal(weight, {cols, depth}, 1 / std::sqrt(static_cast<double>(depth))))};
}

std::vector<InputSpec> with_epilogue(std::vector<InputSpec> in, ir::DType bias) {
  const int64_t rows = in[0].shape[0];
  const int64_t cols = in[1].shape[0];
  in.push_back(normal(bias, {cols}));
  in.push_back(normal(in[0].dtype, {rows, cols}));
  return in;
}

std::vector<InputSpec> all_of(ir::DType type, int64_t rows, int64_t cols, int64_t depth) {
  return {normal(type, {rows, depth}),
          normal(type, {cols, depth}, 1 / std::sqrt(static_cast<double>(depth)))};
}

/// Sizes that exercise the edges of tiles, panels and blocks.
void add_edges(std::vector<Case>* cases) {
  const ir::Attrs plain = to_attrs(Matmul{});
  for (const auto weight : {kF32, kBF16, kF16}) {
    const auto add = [&](const char* name, int64_t rows, int64_t cols, int64_t depth) {
      cases->push_back({.name = str(name, ", ", ir::dtype_name(weight)),
                        .attrs = plain,
                        .inputs = inputs(weight, rows, cols, depth)});
    };
    add("one row", 1, 384, 384);
    add("one row, K below one vector", 1, 33, 5);
    add("one output", 1, 1, 129);
    add("K that no vector divides", 5, 29, 37);
    add("rows that no tile divides", 7, 70, 200);
    add("most rows for the rows kernels", 32, 97, 513);
    add("a short prompt", 70, 50, 100);
    add("K of two blocks and one", 30, 65, 769);
    add("K of three blocks and one", 20, 40, 1153);
    add("more rows than are packed at a time", 515, 40, 24);
    add("one column, many rows", 33, 1, 300);
  }
  cases->push_back({.name = "no rows", .attrs = plain, .inputs = inputs(kBF16, 0, 16, 8)});
}

void add_epilogues(std::vector<Case>* cases) {
  for (const char* activation :
       {"none", "silu", "gelu", "gelu_new", "relu", "relu2", "quick_gelu"}) {
    for (const int64_t rows : {3, 20}) {
      cases->push_back(
          {.name = str("bias, ", activation, " and residual, ", rows, " rows"),
           .attrs = to_attrs(Matmul{.bias = true, .residual = true, .activation = activation}),
           .inputs = with_epilogue(inputs(kBF16, rows, 101, 60), rows == 3 ? kBF16 : kF32)});
    }
  }
}

/// What outputs of 16 bits may be off behind an activation. Tactics that run as two kernels round
/// what it is applied to, and all round the result, as the reference does: by half a unit each. The
/// slope, x f'(x) / f(x), makes at most 1.3 halves of the first, 2 of a square.
double activated_tolerance(std::string_view activation, ir::DType out) {
  const double slope = activation == "relu2" ? 2 : 1.3;
  return out == kF32 ? 0 : (slope + 1 + 1) / 2 * default_tolerance(out);
}

/// f(x * weight^T + bias) and nothing behind it: a kernel that cannot do f has another one do it.
void add_activations(std::vector<Case>* cases) {
  for (const char* activation : {"silu", "gelu", "gelu_new", "relu", "relu2", "quick_gelu"}) {
    for (const auto type : {kF32, kBF16, kF16}) {
      for (const int64_t rows : {1, 30}) {
        std::vector<InputSpec> in = all_of(type, rows, 104, 64);
        in.push_back(normal(type, {104}));
        cases->push_back(
            {.name = str(activation, " product, ", rows, " rows, all ", ir::dtype_name(type)),
             .attrs = to_attrs(
                 Matmul{.bias = true, .activation = activation, .dtype = ir::dtype_name(type)}),
             .inputs = std::move(in),
             .tolerance = activated_tolerance(activation, type)});
      }
    }
  }
  cases->push_back({.name = "gelu product, no bias, odd sizes, all f32",
                    .attrs = to_attrs(Matmul{.activation = "gelu"}),
                    .inputs = all_of(kF32, 7, 29, 37)});
}

void add_types(std::vector<Case>* cases) {
  for (const auto type : {kBF16, kF16}) {
    cases->push_back({.name = str("all ", ir::dtype_name(type)),
                      .attrs = to_attrs(Matmul{.dtype = ir::dtype_name(type)}),
                      .inputs = all_of(type, 5, 40, 96)});
    cases->push_back({.name = str(ir::dtype_name(type), " to f32"),
                      .attrs = to_attrs(Matmul{}),
                      .inputs = all_of(type, 5, 40, 96)});
  }
  std::vector<InputSpec> to_f32 = all_of(kBF16, 24, 136, 200);
  to_f32.push_back(normal(kF32, {136}));
  cases->push_back({.name = "bf16 to f32 with a bias",
                    .attrs = to_attrs(Matmul{.bias = true}),
                    .inputs = std::move(to_f32)});
  cases->push_back({.name = "all f32 with bias and residual",
                    .attrs = to_attrs(Matmul{.bias = true, .residual = true}),
                    .inputs = with_epilogue(all_of(kF32, 24, 136, 200), kF32)});
  // x is rounded by at most 2^-9 of it; over K these errors add up like a random walk.
  for (const int64_t depth : {64, 767, 1542}) {
    cases->push_back({.name = str("bf16 products, K = ", depth),
                      .attrs = to_attrs(Matmul{.bf16_products = true}),
                      .inputs = inputs(kBF16, 72, 70, depth),
                      .tolerance = 0x1p-8});
  }
}

/// x and weight of 16 bits, as tensor cores take them: every shape of their tiles, with edges.
void add_16_bit(std::vector<Case>* cases) {
  const auto add = [&](const char* name, ir::DType type, const Matmul& attrs, int64_t rows,
                       int64_t cols, int64_t depth) {
    std::vector<InputSpec> in = all_of(type, rows, cols, depth);
    if (attrs.bias) in.push_back(normal(type, {cols}));
    if (attrs.residual) in.push_back(normal(type, {rows, cols}));
    cases->push_back({.name = str(name, ", all ", ir::dtype_name(type)),
                      .attrs = to_attrs(attrs),
                      .inputs = std::move(in),
                      // Tensor cores cut sums off where others round them.
                      .tolerance = attrs.dtype == "f32" ? 0x1p-16 : 0});
  };
  for (const auto type : {kBF16, kF16}) {
    const Matmul all = {
        .bias = true, .residual = true, .activation = "silu", .dtype = ir::dtype_name(type)};
    add("one row to f32", type, {}, 1, 1003, 1000);
    add("one row in three pieces", type, all, 1, 4300, 2056);
    add("one long row", type, all, 1, 40, 14344);
    add("three rows", type, all, 3, 72, 136);
    add("eight rows of one vector", type, all, 8, 33, 8);
    add("nine long rows to f32", type, {}, 9, 40, 8192);
    add("sixteen rows", type, all, 16, 4300, 264);
    add("few rows, blocks with many tiles", type, all, 2, 17000, 264);
    add("few rows, K in two parts", type, {}, 5, 4100, 1160);
    add("four rows, unequal shares", type, all, 4, 5000, 2056);
    add("two long rows to f32, odd columns", type, {.bias = true}, 2, 1301, 9224);
    add("few rows, too much of x for shared memory", type, all, 7, 4300, 8200);
    add("32 rows, K in eight parts", type, all, 32, 200, 4104);
    add("64 rows, K in parts, an odd width", type, all, 64, 2050, 2056);
    add("tiles of 64 x 32", type, all, 40, 100, 520);
    add("tiles of 64 x 64", type, all, 600, 696, 200);
    add("a bias", type, {.bias = true, .dtype = all.dtype}, 24, 136, 200);
    add("a residual", type, {.residual = true, .dtype = all.dtype}, 24, 136, 200);
    add("bias and residual", type, {.bias = true, .residual = true, .dtype = all.dtype}, 1, 136,
        200);
    add("bias and relu", type, {.bias = true, .activation = "relu", .dtype = all.dtype}, 24, 136,
        200);
    add("pairs of 128 x 64, below each other", type, all, 2155, 408, 72);
    add("pairs of 128 x 128, side by side, to f32", type, {.bias = true, .activation = "gelu"}, 100,
        8520, 72);
    add("pairs of 128 x 128, odd columns", type, {.residual = true, .dtype = all.dtype}, 300, 4507,
        120);
    add("pairs of 128 x 192, side by side, to f32", type, {}, 100, 17031, 72);
    add("pairs of 128 x 192, below each other", type, all, 190, 8520, 72);
    add("pairs of 128 x 256, side by side, to f32", type, {.bias = true, .residual = true}, 20,
        25552, 128);
  }
  const Matmul plain = {.residual = true, .dtype = "bf16"};
  add("tiles of 128 x 128", kBF16, plain, 1290, 1400, 72);
  add("tiles of 128 x 256", kBF16, plain, 1930, 1741, 72);
  add("many tiles of 128 x 192, K of one stage", kBF16, plain, 1000, 6000, 64);
  add("many tiles of 128 x 256", kBF16, plain, 1930, 4744, 72);
}

/// As many rows as a kernel for few rows has columns, one less and one more; tiles of 128 weight
/// rows, whole, in pieces, and in shares that begin anywhere; all epilogues.
void add_few_rows(std::vector<Case>* cases) {
  const auto add = [&](const char* name, ir::DType type, const Matmul& attrs, int64_t rows,
                       int64_t cols, int64_t depth) {
    std::vector<InputSpec> in = all_of(type, rows, cols, depth);
    if (attrs.bias) in.push_back(normal(type, {cols}));
    if (attrs.residual) in.push_back(normal(type, {rows, cols}));
    cases->push_back({.name = str(rows, " rows, ", name, ", all ", ir::dtype_name(type)),
                      .attrs = to_attrs(attrs),
                      .inputs = std::move(in),
                      .tolerance = attrs.dtype == "f32" ? 0x1p-16 : 0});
  };
  for (const auto type : {kBF16, kF16}) {
    const Matmul plain = {.dtype = ir::dtype_name(type)};
    const Matmul all = {
        .bias = true, .residual = true, .activation = "gelu_new", .dtype = ir::dtype_name(type)};
    for (const int64_t rows : {5, 8, 9, 16, 17, 31, 33, 64, 65, 127, 128}) {
      if (type == kF16 && rows % 16 != 1) continue;
      add("a tile and a part of one", type, plain, rows, 136, 192);
      add("tiles in pieces", type, rows % 2 == 0 ? plain : all, rows, 520, 2056);
    }
    for (const int64_t rows : {8, 16, 32}) {
      add("K of whole stages", type, all, rows, 904, 4096);
      add("K ends within a stage", type, all, rows, 904, 4160);
    }
    for (const int64_t rows : {8, 33, 128})
      add("tiles in pieces, an odd width, to f32", type, {.bias = true}, rows, 301, 1544);
    add("whole tiles, two of a block", type, all, type == kF16 ? 8 : 80, 17160, 72);
    // So large that a check on a CPU only looks at samples.
    add("shares that begin anywhere", type, all, 32, 9000, 3528);
    add("shares that begin anywhere", type, all, 70, 9000, 3528);
  }
}

/// Layers of a Llama of a billion parameters and of a small model, with prompts as large as a check
/// against the reference allows; layers of a Llama of eight billion parameters.
void add_benchmarks(std::vector<Case>* cases) {
  const auto add = [&](const Matmul& attrs, ir::DType weight, int64_t rows, int64_t cols,
                       int64_t depth) {
    cases->push_back({.name = str(ir::dtype_name(weight), attrs.bf16_products ? " products " : " ",
                                  rows, " x ", cols, " x ", depth),
                      .attrs = to_attrs(attrs),
                      .inputs = inputs(weight, rows, cols, depth),
                      .benchmark = true,
                      .tolerance = attrs.bf16_products ? 0x1p-8 : 0});
  };
  for (const auto weight : {kF32, kBF16, kF16})
    add({}, weight, 1, 2048, 2048);
  add({}, kBF16, 1, 8192, 2048);
  add({}, kBF16, 1, 2048, 8192);
  for (const int64_t rows : {2, 4, 8, 16})
    add({}, kBF16, rows, 2048, 2048);
  add({}, kBF16, 512, 512, 2048);
  add({}, kF32, 512, 512, 2048);
  add({.bf16_products = true}, kBF16, 512, 512, 2048);
  for (const int64_t rows : {1, 8, 512})
    add({}, kBF16, rows, 384, 384);
  const auto add_bf16 = [&](int64_t rows, int64_t cols, int64_t depth) {
    std::vector<InputSpec> in = all_of(kBF16, rows, cols, depth);
    in[1].cold = true;
    cases->push_back({.name = str("all bf16 ", rows, " x ", cols, " x ", depth),
                      .attrs = to_attrs(Matmul{.dtype = "bf16"}),
                      .inputs = std::move(in),
                      .benchmark = true});
  };
  for (const int64_t rows : {1, 4, 16, 64, 512, 4096})
    add_bf16(rows, 4096, 4096);
  add_bf16(1, 4096, 14336);
  for (const int64_t rows : {8, 32, 128})
    add_bf16(rows, 4096, 4096);
  const auto add_gelu = [&](const char* model, const Matmul& attrs, int64_t cols, int64_t depth) {
    for (const int64_t rows : {1, 32, 2048}) {
      std::vector<InputSpec> in = all_of(kBF16, rows, cols, depth);
      in[1].cold = true;
      if (attrs.bias) in.push_back(normal(kBF16, {cols}));
      cases->push_back({.name = str(model, ", gelu product ", rows, " x ", cols, " x ", depth),
                        .attrs = to_attrs(attrs),
                        .inputs = std::move(in),
                        .benchmark = true,
                        .tolerance = activated_tolerance(attrs.activation, kBF16)});
    }
  };
  add_gelu("GPT-2 XL", {.bias = true, .activation = "gelu_new", .dtype = "bf16"}, 6400, 1600);
  add_gelu("Falcon 7B", {.activation = "gelu", .dtype = "bf16"}, 18176, 4544);
  for (const int64_t rows : {8, 16, 32, 64, 128, 512, 2048, 8192}) {
    add_bf16(rows, 6144, 4096);
    if (rows < 32) continue;  // a check on a CPU would run it
    add_bf16(rows, 28672, 4096);
    add_bf16(rows, 4096, 14336);
  }
}

}  // namespace

std::vector<Case> matmul_cases() {
  std::vector<Case> cases;
  add_edges(&cases);
  add_epilogues(&cases);
  add_activations(&cases);
  add_types(&cases);
  add_16_bit(&cases);
  add_few_rows(&cases);
  add_benchmarks(&cases);
  add_fused_cases(&cases);
  return cases;
}

}  // namespace millrace::ops
