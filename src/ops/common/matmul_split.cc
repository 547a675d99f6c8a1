#include "ops/common/matmul_split.h"

#include <algorithm>

namespace millrace::ops {
namespace {

// Below this number of products (some microseconds) a second thread does not pay.
constexpr int64_t kSmallProducts = 64 << 10;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

void multiply_by_rows(RowsKernel kernel, const MatmulJob& job, ThreadPool& pool) {
  if (job.rows * job.cols * job.depth <= kSmallProducts) {
    kernel(job, {0, job.rows, 0, job.cols});
    return;
  }
  // Eight streams of 32 KiB or more, where that leaves every thread several parts.
  constexpr int64_t kPartBytes = 256 << 10;
  constexpr int64_t kGrain = 24;  // a whole number of streams of every kernel
  const int64_t row_bytes = job.depth * ir::dtype_size(job.weight_type);
  const int64_t wanted = std::max<int64_t>(kPartBytes / row_bytes, 4 * kGrain);
  const int64_t fair = job.cols / (int64_t{4} * pool.thread_count());
  const int64_t chunk = ceil_div(std::max<int64_t>(1, std::min(wanted, fair)), kGrain) * kGrain;
  pool.parallel_for(ceil_div(job.cols, chunk), [&](int64_t i) {
    kernel(job, {0, job.rows, i * chunk, std::min(job.cols, (i + 1) * chunk)});
  });
}

void multiply_by_panels(const PanelsKernel& kernel, const MatmulJob& job, void* workspace,
                        ThreadPool& pool) {
  const bool small = job.rows * job.cols * job.depth <= kSmallProducts;
  const auto pack = [&](int64_t begin, int64_t end) { kernel.pack_x(job, begin, end, workspace); };
  if (small || job.rows * job.depth <= kSmallProducts) {
    pack(0, job.rows);
  } else {
    pool.parallel_ranges(job.rows, 1, pack);
  }
  const int64_t col_parts = ceil_div(job.cols, kernel.col_block);
  int64_t row_parts = 1;
  constexpr int64_t kMinPartRows = 96;  // that pay for packing a panel again
  while (col_parts * row_parts < int64_t{2} * pool.thread_count() &&
         job.rows >= 2 * row_parts * kMinPartRows) {
    row_parts *= 2;
  }
  const auto multiply = [&](int64_t i) {
    const int64_t row_part = i % row_parts;
    const int64_t col = i / row_parts * kernel.col_block;
    kernel.multiply(job,
                    {job.rows * row_part / row_parts, job.rows * (row_part + 1) / row_parts, col,
                     std::min(job.cols, col + kernel.col_block)},
                    workspace);
  };
  if (small) {
    for (int64_t i = 0; i < col_parts * row_parts; ++i)
      multiply(i);
  } else {
    pool.parallel_for(col_parts * row_parts, multiply);
  }
}

int64_t panels_workspace_bytes(const PanelsKernel& kernel, int64_t rows, int64_t depth) {
  return ceil_div(depth, kernel.depth_block) * rows * PanelsKernel::kRowBytes;
}

}  // namespace millrace::ops
