// The specification: each token of the history is looked up among the others.
#include <algorithm>

#include "ops/sample_process/process_row.h"

namespace millrace::ops {
namespace {

void penalise_row(const ProcessRow& p) {
  const auto prompt_end =
      p.history.begin() + std::min<int64_t>(p.row.prompt_length, std::ssize(p.history));
  for (auto token = p.history.begin(); token != p.history.end(); ++token) {
    if (!p.knows(*token)) continue;
    if (std::find(p.history.begin(), token, *token) != token) continue;  // penalised already
    const auto count = std::count(prompt_end, p.history.end(), *token);
    p.x[*token] = penalise(p.row, p.x[*token], static_cast<int32_t>(count));
  }
}

}  // namespace

void sample_process_ref(const Launch& launch) {
  for (int64_t l = 0; l < launch.in[0].dim(0); ++l) {
    const ProcessRow p = open_row(launch, l);
    if (p.x == nullptr) continue;
    std::copy_n(launch.in[0].as<float>() + l * p.vocab, p.vocab, p.x);
    add_logit_bias(p);
    if (p.counts_tokens()) penalise_row(p);
    mask_tokens(p);
  }
}

}  // namespace millrace::ops
