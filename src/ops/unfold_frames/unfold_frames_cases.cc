#include "ops/harness/cases.h"
#include "ops/unfold_frames/unfold_frames.h"

namespace millrace::ops {
namespace {

/// Sequences of these rows of a step, `gap` rows that none owns in front of each and at the end.
Case make(std::string name, int stride, int columns, const std::vector<int32_t>& lengths, int gap,
          ir::DType dtype = ir::DType::kF32) {
  std::vector<int32_t> starts;
  int64_t rows = 0;
  for (const int32_t length : lengths) {
    starts.push_back(static_cast<int32_t>(rows += gap));
    rows += length;
  }
  rows += gap;
  const auto s = static_cast<int64_t>(lengths.size());
  Case c{.name = std::move(name), .attrs = to_attrs(UnfoldFrames{.stride = stride})};
  c.inputs = {normal(dtype, {2 * rows, columns}), ints({s}, starts), ints({s}, lengths)};
  if (stride == 2) c.inputs.push_back(ids({rows}, 8));
  return c;
}

}  // namespace

std::vector<Case> unfold_frames_cases() {
  using enum ir::DType;
  Case timed = make("Whisper small, 30 seconds", 2, 768, {1500}, 0);
  timed.benchmark = true;
  return {
      make("every frame", 1, 8, {5, 1, 9}, 0),
      make("every second frame", 2, 8, {5, 1, 9}, 0),
      make("rows that nobody owns, a sequence without rows", 1, 5, {4, 0, 3}, 2),
      make("the same, every second frame", 2, 5, {4, 0, 3}, 2),
      make("bf16", 2, 13, {4, 3}, 1, kBF16),
      make("f16", 1, 13, {4, 3}, 1, kF16),
      timed,
  };
}

}  // namespace millrace::ops
