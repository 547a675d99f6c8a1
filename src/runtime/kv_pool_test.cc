#include "runtime/kv_pool.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace millrace::runtime {
namespace {

engine::KvGroup group(int kv_heads, int k_size, int v_size, std::vector<std::string> layers) {
  engine::KvGroup made;
  made.kv_heads = kv_heads;
  made.k_size = k_size;
  made.v_size = v_size;
  made.layers = std::move(layers);
  return made;
}

// docs/cuda.md, "The KV cache".
TEST(KvPool, BytesOfABlock) {
  const engine::KvGroup eight_b = group(8, 128, 128, {"a", "b", "c"});
  const int64_t elements = int64_t{3} * 2 * 8 * 64 * 128, vectors = int64_t{3} * 2 * 8 * 64;
  EXPECT_EQ(kv_block_bytes(eight_b, 64, ir::DType::kF32), elements * 4);
  EXPECT_EQ(kv_block_bytes(eight_b, 64, ir::DType::kBF16), elements * 2);
  EXPECT_EQ(kv_block_bytes(eight_b, 64, ir::DType::kF8E4M3), elements);
  EXPECT_EQ(kv_block_bytes(eight_b, 64, ir::DType::kI8), elements + vectors * 4);
}

TEST(KvPool, PartsOfABlockFollowEachOther) {
  const auto device = device::make_cpu_device(1);
  for (const ir::DType dtype : {ir::DType::kF32, ir::DType::kI8, ir::DType::kF8E4M3}) {
    SCOPED_TRACE(ir::dtype_name(dtype));
    constexpr int kHeads = 3, kTokens = 5, kK = 7, kV = 9;
    KvPool pool({group(kHeads, kK, kV, {"a", "b"})}, dtype, {{4, kTokens}}, *device);
    std::vector<std::pair<int64_t, int64_t>> parts;  // begin and end in a block
    for (const char* layer : {"a", "b"}) {
      const ops::KvCacheView& view = *pool.view(layer);
      const auto add = [&](int64_t begin, int64_t bytes) {
        EXPECT_EQ(begin % 64, 0);
        parts.emplace_back(begin, begin + bytes);
      };
      add(view.k_offset, kHeads * kTokens * kK * ir::dtype_size(dtype));
      add(view.v_offset, kHeads * kTokens * kV * ir::dtype_size(dtype));
      if (dtype != ir::DType::kI8) continue;
      add(view.k_scale_offset, kHeads * kTokens * 4);
      add(view.v_scale_offset, kHeads * kTokens * 4);
    }
    std::sort(parts.begin(), parts.end());
    for (size_t i = 1; i < parts.size(); ++i)
      EXPECT_LE(parts[i - 1].second, parts[i].first);
    EXPECT_LE(parts.back().second, pool.view("a")->block_bytes);
    EXPECT_EQ(pool.bytes(), 4 * pool.view("a")->block_bytes);
  }
}

}  // namespace
}  // namespace millrace::runtime
