// The specification, and fast enough on a CPU: a token has some hundred logits.
#include <algorithm>
#include <array>
#include <cmath>

#include "ops/common/cpu_tactic.h"
#include "ops/common/scalar_access.h"
#include "ops/moe_route/moe_route.h"

namespace millrace::ops {
namespace {

/// One token.
class Row {
 public:
  Row(const Launch& launch, int64_t row)
      : a_(launch.attrs<MoeRoute>()),
        experts_(launch.in[0].dim(1)),
        sigmoid_(a_.scores == "sigmoid"),
        logits_(launch.in[0].as<float>() + row * experts_),
        ids_(launch.out[0].as<int32_t>() + row * a_.experts_per_token),
        weights_(launch.out[1].as<float>() + row * a_.experts_per_token) {
    for (int64_t e = 0; e < experts_; ++e) {
      // Softmax keeps the order of the logits, which need no rounding.
      choices_[static_cast<size_t>(e)] = sigmoid_ ? score(e, 0) : double{logits_[e]};
    }
    if (!a_.bias) return;
    for (int64_t e = 0; e < experts_; ++e)
      choices_[static_cast<size_t>(e)] += load_float(launch.in[1].data, launch.in[1].dtype, e);
  }

  void run() {
    if (a_.kept_groups < a_.groups) drop_groups();
    for (int j = 0; j < a_.experts_per_token; ++j) {
      // The first of the largest ones: the lower id.
      const auto best = std::max_element(choices_.begin(), choices_.begin() + experts_);
      ids_[j] = static_cast<int32_t>(best - choices_.begin());
      *best = -INFINITY;
    }
    weigh();
  }

 private:
  /// Scores, up to the factor that all of them share.
  double score(int64_t expert, float largest) const {
    const double logit = double{logits_[expert]};
    return sigmoid_ ? 1 / (1 + std::exp(-logit)) : std::exp(logit - double{largest});
  }

  double group_score(int64_t begin, int64_t end) const {
    double first = -INFINITY, second = -INFINITY;
    for (int64_t e = begin; e < end; ++e) {
      const double value = choices_[static_cast<size_t>(e)];
      second = std::max(second, std::min(first, value));
      first = std::max(first, value);
    }
    return a_.group_score == "max" ? first : first + second;
  }

  /// Experts of all but the best kept_groups groups are never chosen.
  void drop_groups() {
    const int64_t size = experts_ / a_.groups;
    std::array<double, kMaxExpertGroups> scores;
    for (int g = 0; g < a_.groups; ++g)
      scores[static_cast<size_t>(g)] = group_score(g * size, (g + 1) * size);
    for (int i = 0; i < a_.kept_groups; ++i)
      *std::max_element(scores.begin(), scores.begin() + a_.groups) = -INFINITY;
    for (int g = 0; g < a_.groups; ++g) {
      if (std::isinf(scores[static_cast<size_t>(g)])) continue;
      std::fill_n(choices_.begin() + g * size, size, -INFINITY);
    }
  }

  void weigh() const {
    const float largest = *std::max_element(logits_, logits_ + experts_);
    double total = sigmoid_ ? 1 : 0;
    if (a_.normalise) {
      total = 0;
      for (int j = 0; j < a_.experts_per_token; ++j)
        total += score(ids_[j], largest);
    } else if (!sigmoid_) {
      for (int64_t e = 0; e < experts_; ++e)
        total += score(e, largest);
    }
    for (int j = 0; j < a_.experts_per_token; ++j)
      weights_[j] = static_cast<float>(a_.scale * score(ids_[j], largest) / total);
  }

  const MoeRoute& a_;
  const int64_t experts_;
  const bool sigmoid_;
  const float* logits_;
  int32_t* ids_;
  float* weights_;
  std::array<double, kMaxExperts> choices_;
};

}  // namespace

void moe_route_ref(const Launch& launch) {
  constexpr int64_t kWorkOfALogit = 16;
  const Tensor& logits = launch.in[0];
  for_rows(launch, logits.dim(0), kWorkOfALogit * logits.dim(1), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      Row(launch, row).run();
  });
}

}  // namespace millrace::ops
