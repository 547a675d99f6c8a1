#include "cli/encode.h"

#include <algorithm>
#include <chrono>

namespace millrace::cli {

std::vector<Result> encode(GenerationSession& session, const std::vector<Prompt>& prompts,
                           const LogitsCallback& logits) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  std::vector<GenerationRequest> requests;
  std::vector<Result> results(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    requests.push_back({prompts[i].input_ids, {}});
    requests.back().sampling.max_new_tokens = 0;
    results[i].output.output_ids.resize(prompts[i].input_ids.size());
  }
  const auto take_best = [&](int sequence, int position, int rows, std::span<const float> values) {
    if (logits) logits(sequence, position, rows, values);
    const auto width = static_cast<int64_t>(values.size()) / rows;
    auto& ids = results[static_cast<size_t>(sequence)].output.output_ids;
    for (int row = 0; row < rows; ++row) {
      const auto first = values.begin() + row * width;
      ids[static_cast<size_t>(position + row)] =
          static_cast<int32_t>(std::max_element(first, first + width) - first);
    }
  };
  session.decode(requests, {.logits = take_best, .prompt_logits = true});
  const std::chrono::duration<double> took = Clock::now() - start;
  for (Result& result : results) {
    result.output.finish_reason = FinishReason::kStop;
    result.first_token_s = result.total_s = took.count();
    if (session.engine().tokenizer()) {
      result.text = session.engine().tokenizer()->decode(result.output.output_ids);
    }
  }
  return results;
}

}  // namespace millrace::cli
