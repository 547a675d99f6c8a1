// The storage behind the KV blocks: for each group of layers one pool, in which a block holds K and
// V planes of every layer of the group. Knows layout, not policy.
//
//   block b of a group:  | layer 0: K [G, tokens, k_size] | V [G, tokens, v_size] | layer 1 ... |
//
// int8: behind the V of a layer come the scales of its K and of its V, f32 [G, tokens] each.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"
#include "engine/plan.h"
#include "ops/common/kv_cache_view.h"

namespace millrace::runtime {

/// Bytes of one block of a group.
int64_t kv_block_bytes(const engine::KvGroup& group, int tokens_per_block, ir::DType dtype);

class KvPool {
 public:
  struct GroupSize {
    int64_t num_blocks = 0;
    int tokens_per_block = 0;
  };

  /// Allocates `sizes[g]` blocks for each group. Throws Error when the memory is not there.
  KvPool(const std::vector<engine::KvGroup>& groups, ir::DType dtype,
         const std::vector<GroupSize>& sizes, device::Device& device);

  /// The view of the layer whose state input has this name. Lives as long as the pool.
  ops::KvCacheView* view(const std::string& layer) { return &views_.at(layer); }
  int64_t bytes() const { return bytes_; }
  /// All blocks of a group, on the device.
  const device::Memory& memory(size_t group) const { return *groups_.at(group).memory; }

 private:
  struct Group {
    std::unique_ptr<device::Memory> memory;
    int64_t block_bytes = 0;
  };
  std::vector<Group> groups_;
  std::map<std::string, ops::KvCacheView> views_;  // by name of the layer's state input
  int64_t bytes_ = 0;
};

}  // namespace millrace::runtime
