// Which kernels say that a GPU has too little shared memory for them, for GPUs that are not there.
#include <set>

#include <gtest/gtest.h>

#include "ops/common/shared_memory.h"
#include "ops/harness/case_run.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

device::Properties gpu(int sm) {
  device::Properties properties;
  properties.kind = device::Kind::kCuda;
  properties.sm = sm;
  return properties;
}

/// Of all cases: tactics that can run one of them on a B200, but not on this GPU, for want of
/// shared memory. Something else must be able to. (Kernels for Hopper ask the driver.)
std::set<std::string> refused(const char* name, int sm) {
  const Op& op = *find_op(name);
  std::set<std::string> refused;
  for (const Case& c : op_cases(name)) {
    const CaseData data(op, c, CaseData::kShapes);
    const Launch launch = data.shape_launch();
    int here = 0, there = 0;
    for (const Tactic& tactic : op.tactics) {
      if (tactic.device != device::Kind::kCuda) continue;
      const auto why_not = [&](int of) {
        return tactic.why_not == nullptr ? std::string() : tactic.why_not(launch, gpu(of));
      };
      if (!why_not(100).empty()) continue;
      ++there;
      const std::string reason = why_not(sm);
      if (reason.empty()) ++here;
      if (reason.find("of shared memory, a block of this GPU has") != std::string::npos) {
        refused.insert(tactic.name);
      }
    }
    EXPECT_TRUE(here > 0 || there == 0) << name << ", case \"" << c.name << "\", sm " << sm;
  }
  return refused;
}

using Names = std::set<std::string>;

TEST(SharedMemory, IsThatOfTheComputeCapability) {
  EXPECT_EQ(most_shared_bytes(gpu(80)), 166912);  // A100
  EXPECT_EQ(most_shared_bytes(gpu(86)), 101376);
  EXPECT_EQ(most_shared_bytes(gpu(89)), 101376);  // L4
  EXPECT_EQ(most_shared_bytes(gpu(90)), 232448);  // H100
  EXPECT_EQ(most_shared_bytes(gpu(120)), 101376);
}

TEST(SharedMemory, OtherTacticsRunWhereThereIsTooLittle) {
  EXPECT_EQ(refused("matmul", 89), (Names{"matmul_row_cuda", "matmul_gemv_cuda"}));
  EXPECT_EQ(refused("matmul", 80), Names{"matmul_gemv_cuda"});  // four long rows and a norm
  EXPECT_EQ(refused("attention_generation", 89), Names{"attention_generation_mma_cuda"});
  EXPECT_EQ(refused("attention_generation", 80), Names{"attention_generation_mma_cuda"});
}

}  // namespace
}  // namespace millrace::ops
