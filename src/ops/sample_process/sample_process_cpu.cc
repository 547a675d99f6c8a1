// Rows over threads; counts in a table [V] per task, cleared by a second walk over the history.
#include <algorithm>

#include "base/thread_pool.h"
#include "ops/sample_process/process_row.h"

namespace millrace::ops {
namespace {

constexpr int64_t kCopyChunk = 32768;        // elements: one row goes over several threads
constexpr int32_t kSeen = int32_t{1} << 30;  // the token is in the history

/// REQUIRES: `counts` is all 0; leaves it so.
void penalise_row(const ProcessRow& p, int32_t* counts) {
  for (size_t i = 0; i < p.history.size(); ++i) {
    const int32_t id = p.history[i];
    if (!p.knows(id)) continue;
    const bool is_new = static_cast<int32_t>(i) >= p.row.prompt_length;
    counts[id] = (counts[id] + (is_new ? 1 : 0)) | kSeen;
  }
  for (const int32_t id : p.history) {
    if (!p.knows(id) || counts[id] == 0) continue;
    p.x[id] = penalise(p.row, p.x[id], counts[id] & ~kSeen);
    counts[id] = 0;
  }
}

void copy_rows(const Launch& launch) {
  const int64_t vocab = launch.in[0].dim(1);
  const int64_t chunks = (vocab + kCopyChunk - 1) / kCopyChunk;
  launch.pool().parallel_for(launch.in[0].dim(0) * chunks, [&](int64_t task) {
    const int64_t l = task / chunks;
    const ProcessRow p = open_row(launch, l);
    if (p.x == nullptr) return;
    const int64_t begin = task % chunks * kCopyChunk;
    std::copy_n(launch.in[0].as<float>() + l * vocab + begin, std::min(kCopyChunk, vocab - begin),
                p.x + begin);
  });
}

void process_rows(const Launch& launch, int64_t task, int64_t tasks) {
  const int64_t vocab = launch.in[0].dim(1);
  int32_t* counts = static_cast<int32_t*>(launch.workspace) + task * vocab;
  bool is_cleared = false;
  for (int64_t l = task; l < launch.in[0].dim(0); l += tasks) {
    const ProcessRow p = open_row(launch, l);
    if (p.x == nullptr) continue;
    add_logit_bias(p);
    if (p.counts_tokens()) {
      if (!is_cleared) std::fill_n(counts, vocab, 0);
      is_cleared = true;
      penalise_row(p, counts);
    }
    mask_tokens(p);
  }
}

}  // namespace

void sample_process_cpu(const Launch& launch) {
  copy_rows(launch);
  const int64_t tasks = process_tasks(launch);
  launch.pool().parallel_for(tasks, [&](int64_t task) { process_rows(launch, task, tasks); });
}

}  // namespace millrace::ops
