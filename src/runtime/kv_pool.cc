#include "runtime/kv_pool.h"

#include "base/check.h"

namespace millrace::runtime {
namespace {

/// Where the parts of a layer lie in a block, in bytes from its K on.
struct LayerLayout {
  int64_t v, k_scale, v_scale, end;
};

LayerLayout layer_layout(const engine::KvGroup& group, int tokens, ir::DType dtype) {
  const auto plane = [&](int64_t size, int64_t element) {
    return (int64_t{group.kv_heads} * tokens * size * element + 63) / 64 * 64;
  };
  const int64_t element = ir::dtype_size(dtype);
  const int64_t scales = ops::has_scales(dtype) ? plane(1, sizeof(float)) : 0;
  LayerLayout at{};
  at.v = plane(group.k_size, element);
  at.k_scale = at.v + plane(group.v_size, element);
  at.v_scale = at.k_scale + scales;
  at.end = at.v_scale + scales;
  return at;
}

}  // namespace

int64_t kv_block_bytes(const engine::KvGroup& group, int tokens_per_block, ir::DType dtype) {
  return layer_layout(group, tokens_per_block, dtype).end *
         static_cast<int64_t>(group.layers.size());
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
    const LayerLayout at = layer_layout(group, tokens, dtype);
    int64_t offset = 0;
    for (const std::string& layer : group.layers) {
      ops::KvCacheView view;
      view.pool = groups_.back().memory->data();
      view.block_bytes = block;
      view.k_offset = offset;
      view.v_offset = offset + at.v;
      view.k_scale_offset = offset + at.k_scale;
      view.v_scale_offset = offset + at.v_scale;
      view.tokens_per_block = tokens;
      view.kv_heads = group.kv_heads;
      view.k_size = group.k_size;
      view.v_size = group.v_size;
      view.group = static_cast<int32_t>(g);
      view.dtype = dtype;
      views_[layer] = view;
      offset += at.end;
    }
  }
}

}  // namespace millrace::runtime
