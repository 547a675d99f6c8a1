#include "ops/harness/cases.h"
#include "ops/sample_logprobs/sample_logprobs.h"

namespace millrace::ops {

std::vector<Case> sample_logprobs_cases() {
  const auto with = [](const char* name, int k, std::vector<int32_t> counts, int64_t vocab,
                       bool benchmark = false) {
    const auto rows = std::ssize(counts);
    return Case{.name = name,
                .attrs = to_attrs(SampleLogprobs{.k = k}),
                .inputs = {normal(ir::DType::kF32, {rows, vocab}, 3), ids({rows}, vocab),
                           ints({rows}, std::move(counts))},
                .benchmark = benchmark};
  };
  return {
      with("width that no vector divides", 5, {5, 0, 3}, 77),
      with("rows that nobody wants", 3, {-1, 2, -1, 9}, 130),
      with("more best tokens than the vocabulary has", 20, {20, 1}, 7),
      with("more than a chunk", 20, {20, -1, 4}, 40003),
      with("1 x 128256, 20 best", 20, {20}, 128256, true),
      with("16 x 128256, the token alone", 1, std::vector<int32_t>(16, 0), 128256, true),
  };
}

}  // namespace millrace::ops
