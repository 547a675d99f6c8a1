#include "ops/matmul/matmul_cases_fused.h"

#include <cmath>
#include <string_view>

#include "base/str.h"
#include "ops/matmul/matmul.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

/// What gated outputs of 16 bits may be off. Tactics that run as two kernels round gate and up, and
/// all round the result, as the reference does: by half a unit each. The slope of silu, g f'(g) /
/// f(g), makes at most 1.28 halves of the gate's; without a function it is one.
double gated_tolerance(std::string_view out) {
  constexpr double kHalves = 1.28 + 1 + 1 + 1;
  return out == "f32" ? 0 : kHalves / 2 * default_tolerance(*ir::parse_dtype(out));
}

/// [T, F] outputs from K elements; the types of x, of the weight and of the bias, if there is one.
struct Sizes {
  int64_t rows, width, depth;
};

Case gated_case(const char* name, const Sizes& sizes, Matmul attrs, ir::DType x, ir::DType weight,
                ir::DType bias) {
  attrs.gated = true;
  const double deviation = 1 / std::sqrt(static_cast<double>(sizes.depth));
  Case made{.name = str("gated, ", name, ", ", sizes.rows, " x ", sizes.width, " x ", sizes.depth,
                        ", ", ir::dtype_name(x), " ", ir::dtype_name(weight)),
            .attrs = to_attrs(attrs),
            .inputs = {normal(x, {sizes.rows, sizes.depth}),
                       cold(normal(weight, {2 * sizes.width, sizes.depth}, deviation))},
            .tolerance = gated_tolerance(attrs.dtype)};
  if (attrs.bias) made.inputs.push_back(normal(bias, {2 * sizes.width}));
  return made;
}

/// Any types, and widths that no vector, tile or pair divides.
void add_types(std::vector<Case>* cases) {
  for (const auto weight : {kF32, kBF16, kF16}) {
    const auto add = [&](const char* name, const Sizes& sizes, const Matmul& attrs = {}) {
      cases->push_back(gated_case(name, sizes, attrs, kF32, weight, weight));
    };
    add("one output", {1, 1, 129}, {.activation = "silu"});
    add("one row", {1, 67, 200}, {.bias = true, .activation = "silu"});
    add("some rows", {7, 29, 37}, {.activation = "gelu"});
    add("a short prompt", {70, 50, 100}, {.bias = true, .activation = "silu"});
  }
  cases->push_back(
      gated_case("f32 bias", {5, 24, 64}, {.bias = true, .dtype = "bf16"}, kBF16, kBF16, kF32));
  cases->push_back(gated_case("no rows", {0, 8, 16}, {}, kBF16, kBF16, kBF16));
}

void add_activations(std::vector<Case>* cases) {
  for (const char* activation :
       {"none", "silu", "gelu", "gelu_new", "relu", "relu2", "quick_gelu"}) {
    for (const int64_t rows : {2, 20}) {
      const Matmul attrs = {.bias = true, .activation = activation};
      cases->push_back(gated_case(activation, {rows, 101, 60}, attrs, kF32, kBF16, kBF16));
      cases->push_back(
          gated_case(str(activation, " to f32").c_str(), {rows, 104, 64}, attrs, kF16, kF16, kF16));
      cases->back().tolerance = 0x1p-15;  // tensor cores cut sums off; relu2 doubles that
    }
  }
}

/// What tensor cores take: tiles of 64 outputs, whole, in pieces and in shares that begin anywhere;
/// as many rows as a kernel for few rows has columns, one less and one more.
void add_16_bit(std::vector<Case>* cases) {
  for (const auto type : {kBF16, kF16}) {
    const auto add = [&](const char* name, const Sizes& sizes, bool bias = false) {
      const Matmul attrs = {.bias = bias, .activation = "silu", .dtype = ir::dtype_name(type)};
      cases->push_back(gated_case(name, sizes, attrs, type, type, type));
    };
    add("one row, unequal shares", {1, 2500, 264});
    add("one row, a bias", {1, 1300, 1032}, true);
    for (const int64_t rows : {2, 3, 4, 5, 8, 9, 16, 17, 33, 64, 65, 127, 128}) {
      if (type == kF16 && rows % 16 != 1) continue;
      add("a tile and a part of one", {rows, 72, 192}, rows % 2 == 0);
      add("tiles in pieces", {rows, 264, 1032}, rows % 2 == 1);
    }
    for (const int64_t rows : {6, 16, 29})
      add("K ends within a stage", {rows, 456, 2112}, rows == 16);
    for (const int64_t rows : {3, 33, 128})
      add("an odd width", {rows, 301, 1544}, rows == 33);
    add("whole tiles, two of a block", {type == kF16 ? 8 : 80, 8584, 72}, true);
    add("many columns", {70, 13496, 136});
    add("many rows", {600, 696, 200}, true);
    add("many rows, wide", {1290, 1400, 72});
  }
  // So large that a check on a CPU only looks at samples.
  cases->push_back(gated_case("shares that begin anywhere", {70, 4504, 3528},
                              {.bias = true, .activation = "silu", .dtype = "bf16"}, kBF16, kBF16,
                              kBF16));
}

/// [T, N] outputs, twice as many weight rows where they are gated; a norm in front.
Case normed_case(const char* name, const Sizes& sizes, Matmul attrs, ir::DType type,
                 ir::DType norm_weight) {
  attrs.norm = "rms";
  const int64_t weight_rows = attrs.gated ? 2 * sizes.width : sizes.width;
  const double deviation = 1 / std::sqrt(static_cast<double>(sizes.depth));
  Case made{.name = str("normed, ", name, ", ", sizes.rows, " x ", sizes.width, " x ", sizes.depth,
                        ", ", ir::dtype_name(type), ", weight ", ir::dtype_name(norm_weight)),
            .attrs = to_attrs(attrs),
            .inputs = {normal(type, {sizes.rows, sizes.depth}, 3),
                       cold(normal(type, {weight_rows, sizes.depth}, deviation))},
            .tolerance = attrs.gated ? gated_tolerance(attrs.dtype) : 0};
  if (attrs.bias) made.inputs.push_back(normal(type, {weight_rows}));
  if (attrs.residual) made.inputs.push_back(normal(type, {sizes.rows, sizes.width}));
  made.inputs.push_back(normal(norm_weight, {sizes.depth}, 0.2, attrs.norm_offset == 0 ? 1 : 0));
  return made;
}

/// As many rows as the kernel takes that norms for itself, and more; weights of another type; rows
/// that its threads do not divide, and the longest.
void add_normed(std::vector<Case>* cases) {
  for (const auto type : {kF32, kBF16, kF16}) {
    const Matmul plain = {.dtype = ir::dtype_name(type)};
    const Matmul all = {.bias = true,
                        .residual = true,
                        .activation = "gelu",
                        .dtype = ir::dtype_name(type),
                        .norm_eps = 1e-3,
                        .norm_offset = 1};
    const Matmul gated = {
        .bias = true, .activation = "silu", .dtype = ir::dtype_name(type), .gated = true};
    const auto add = [&](const char* name, const Sizes& sizes, const Matmul& attrs,
                         ir::DType norm_weight) {
      cases->push_back(normed_case(name, sizes, attrs, type, norm_weight));
    };
    for (const int64_t rows : {1, 2, 3, 4, 5, 33, 130}) {
      add("plain", {rows, 136, 200}, plain, type);
      add("everything", {rows, 101, 2056}, all, rows % 2 == 0 ? kF32 : type);
      add("gated", {rows, 88, 1032}, gated, type);
    }
    add("one vector", {3, 40, 8}, plain, kF32);
    add("long rows", {4, 60, 16384}, plain, kF32);
    add("gated, an odd width", {2, 301, 1032}, gated, kF32);
  }
  cases->push_back(normed_case("no rows", {0, 16, 8}, {.dtype = "bf16"}, kBF16, kBF16));
}

/// The feed-forward of a Llama of eight billion parameters; a seventh of it where a check on a CPU
/// would make the numbers.
void add_benchmarks(std::vector<Case>* cases) {
  const Matmul gated = {.activation = "silu", .dtype = "bf16", .gated = true};
  for (const int64_t rows : {32, 64, 128, 512, 2048}) {
    cases->push_back(gated_case("Llama 8B", {rows, 14336, 4096}, gated, kBF16, kBF16, kBF16));
    cases->back().benchmark = true;
  }
  for (const int64_t rows : {1, 8}) {
    cases->push_back(gated_case("a part", {rows, 2048, 4096}, gated, kBF16, kBF16, kBF16));
    cases->back().benchmark = true;
    cases->push_back(normed_case("gated, a part", {rows, 2048, 4096}, gated, kBF16, kBF16));
    cases->back().benchmark = true;
  }
}

}  // namespace

void add_fused_cases(std::vector<Case>* cases) {
  add_types(cases);
  add_activations(cases);
  add_16_bit(cases);
  add_normed(cases);
  add_benchmarks(cases);
}

}  // namespace millrace::ops
