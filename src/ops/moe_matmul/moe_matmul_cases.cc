#include <cmath>

#include "base/str.h"
#include "ops/harness/cases.h"
#include "ops/moe_matmul/moe_matmul.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

struct Sizes {
  int64_t tokens, chosen, experts, cols, depth;
};

enum class Rows { kOfTokens, kOfChoices };  // x [T, K] or [T, k, K]

Case make(std::string name, const Sizes& s, ir::DType x, ir::DType weight, InputSpec ids,
          Rows rows = Rows::kOfTokens, bool bias = false) {
  const MoeMatmul attrs{
      .experts = static_cast<int>(s.experts), .bias = bias, .dtype = ir::dtype_name(x)};
  Case c{.name = std::move(name), .attrs = to_attrs(attrs)};
  c.inputs.push_back(rows == Rows::kOfTokens ? normal(x, {s.tokens, s.depth})
                                             : normal(x, {s.tokens, s.chosen, s.depth}));
  c.inputs.push_back(std::move(ids));
  c.inputs.push_back(cold(
      normal(weight, {s.experts * s.cols, s.depth}, 1 / std::sqrt(static_cast<double>(s.depth)))));
  if (bias) c.inputs.push_back(normal(weight, {s.experts, s.cols}));
  return c;
}

InputSpec any_ids(const Sizes& s) {
  return ids({s.tokens, s.chosen}, s.experts);
}

InputSpec one_expert(const Sizes& s, int32_t id) {
  return ints({s.tokens, s.chosen},
              std::vector<int32_t>(static_cast<size_t>(s.tokens * s.chosen), id));
}

void add_edges(ir::DType x, ir::DType weight, std::vector<Case>* cases) {
  const auto add = [&](const char* name, const Sizes& s, InputSpec ids, Rows rows, bool bias) {
    cases->push_back(make(str(name, ", ", ir::dtype_name(x), " by ", ir::dtype_name(weight)), s, x,
                          weight, std::move(ids), rows, bias));
  };
  const Sizes one{1, 2, 8, 97, 64}, few{5, 2, 4, 33, 37}, many{70, 3, 6, 72, 136};
  const Sizes crowd{600, 2, 3, 40, 48}, sparse{9, 2, 60, 24, 80};
  add("one token", one, any_ids(one), Rows::kOfTokens, false);
  add("one token, its choices apart", one, any_ids(one), Rows::kOfChoices, true);
  add("sizes that no vector divides", few, any_ids(few), Rows::kOfTokens, true);
  add("a prompt", many, any_ids(many), Rows::kOfTokens, true);
  add("a prompt, its choices apart", many, any_ids(many), Rows::kOfChoices, false);
  add("all tokens on the last expert", many, one_expert(many, 5), Rows::kOfTokens, false);
  add("more rows of an expert than a piece has", crowd, one_expert(crowd, 1), Rows::kOfChoices,
      false);
  add("most experts without a row", sparse, any_ids(sparse), Rows::kOfTokens, false);
}

}  // namespace

std::vector<Case> moe_matmul_cases() {
  std::vector<Case> cases;
  for (const auto weight : {kF32, kBF16, kF16})
    add_edges(kF32, weight, &cases);
  for (const auto type : {kBF16, kF16})
    add_edges(type, type, &cases);
  const Sizes none{0, 2, 4, 8, 16};
  cases.push_back(make("no rows", none, kF32, kBF16, any_ids(none)));
  const auto add_benchmark = [&](const char* name, ir::DType x, const Sizes& s, Rows rows) {
    cases.push_back(make(name, s, x, kBF16, any_ids(s), rows));
    cases.back().benchmark = true;
  };
  const Sizes qwen_up{1, 8, 32, 1536, 2048}, qwen_down{1, 8, 32, 2048, 768};
  Sizes prompt = qwen_up;
  prompt.tokens = 128;
  add_benchmark("1 token, gate and up", kF32, qwen_up, Rows::kOfTokens);
  add_benchmark("1 token, down", kF32, qwen_down, Rows::kOfChoices);
  add_benchmark("128 tokens, gate and up", kF32, prompt, Rows::kOfTokens);
  add_benchmark("bf16, 1 token, gate and up", kBF16, qwen_up, Rows::kOfTokens);
  add_benchmark("bf16, 1 token, down", kBF16, qwen_down, Rows::kOfChoices);
  prompt.tokens = 512;
  add_benchmark("bf16, 512 tokens, gate and up", kBF16, prompt, Rows::kOfTokens);
  return cases;
}

}  // namespace millrace::ops
