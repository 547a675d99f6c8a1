#include "runtime/kv_pool.h"

#include "base/check.h"
#include "ops/common/kv_types.h"

namespace millrace::runtime {
namespace {

int64_t plane_bytes(const engine::KvGroup& group, int size, int tokens, ir::DType dtype) {
  const int64_t bytes = int64_t{group.kv_heads} * tokens * size * ir::dtype_size(dtype);
  return (bytes + 63) / 64 * 64;
}

/// Scales of K and V, where the type has some.
int64_t scale_bytes(const engine::KvGroup& group, int tokens, ir::DType dtype) {
  return dtype == ir::DType::kI8 ? 2 * ops::kv_scale_bytes(group.kv_heads, tokens) : 0;
}

}  // namespace

int64_t kv_block_bytes(const engine::KvGroup& group, int tokens_per_block, ir::DType dtype) {
  const int64_t layer = plane_bytes(group, group.k_size, tokens_per_block, dtype) +
                        plane_bytes(group, group.v_size, tokens_per_block, dtype) +
                        scale_bytes(group, tokens_per_block, dtype);
  return layer * static_cast<int64_t>(group.layers.size());
}

KvPool::KvPool(const std::vector<engine::KvGroup>& groups, ir::DType dtype,
               const std::vector<GroupSize>& sizes, device::Device& device) {
  CHECK(groups.size() == sizes.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    const engine::KvGroup& group = groups[g];
    const int tokens = sizes[g].tokens_per_block;
    const int64_t block = kv_block_bytes(group, tokens, dtype);
    groups_.push_back({device.allocate(block * sizes[g].num_blocks, "KV pool"), block});
    bytes_ += groups_.back().memory->size();
    int64_t offset = 0;
    for (const std::string& layer : group.layers) {
      ops::KvCacheView view;
      view.pool = groups_.back().memory->data();
      view.block_bytes = block;
      view.k_offset = offset;
      view.v_offset = offset + plane_bytes(group, group.k_size, tokens, dtype);
      view.tokens_per_block = tokens;
      view.kv_heads = group.kv_heads;
      view.k_size = group.k_size;
      view.v_size = group.v_size;
      view.group = static_cast<int32_t>(g);
      view.dtype = dtype;
      views_[layer] = view;
      offset = view.v_offset + plane_bytes(group, group.v_size, tokens, dtype) +
               scale_bytes(group, tokens, dtype);
    }
  }
}

}  // namespace millrace::runtime
