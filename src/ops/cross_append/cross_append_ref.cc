#include "base/thread_pool.h"
#include "ops/common/full_attention.h"
#include "ops/common/scalar_access.h"
#include "ops/cross_append/cross_append_inputs.h"

namespace millrace::ops {
namespace {

/// One row's vectors of one plane: `slot(head)` is where head `head`'s lies.
template <typename Slot>
void store_row(const Tensor& rows, int64_t row, int heads, int size, ir::DType stored,
               const Slot& slot) {
  for (int head = 0; head < heads; ++head) {
    for (int d = 0; d < size; ++d) {
      const int64_t at = (row * heads + head) * size + d;
      store_float(slot(head), stored, d, load_float(rows.data, rows.dtype, at));
    }
  }
}

}  // namespace

void cross_append_ref(const Launch& launch) {
  const auto& a = launch.attrs<CrossAppend>();
  const OwnedRows rows(launch.in[kAppendStart], launch.in[kAppendLength]);
  const auto& cache = *launch.in[kAppendCache].as<KvCacheView>();
  const Tensor& table = launch.in[kAppendBlocks];
  const int64_t tokens = cache.tokens_per_block, element = ir::dtype_size(cache.dtype);
  for (int64_t s = 0; s < rows.num_sequences; ++s) {
    const int32_t* blocks = table.as<int32_t>() + (cache.group * table.dim(1) + s) * table.dim(2);
    launch.pool().parallel_for(
        rows.query_length[s],
        [&](int64_t i) {
          const int64_t block = blocks[i / tokens], slot = i % tokens,
                        row = rows.query_start[s] + i;
          store_row(launch.in[kAppendK], row, a.kv_heads, a.head_size, cache.dtype,
                    [&](int head) { return cache.k(block, head) + slot * cache.k_size * element; });
          store_row(launch.in[kAppendV], row, a.kv_heads, a.v_head_size, cache.dtype,
                    [&](int head) { return cache.v(block, head) + slot * cache.v_size * element; });
        },
        Schedule::kStatic);
  }
}

}  // namespace millrace::ops
