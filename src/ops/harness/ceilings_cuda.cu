// What a GPU can do at most: reading memory, multiply-adds, and tensor cores on random numbers
// (they draw less power on zeros and then run faster than real data lets them).
#include "device/time_launches.h"
#include "ops/common/cuda_kernel.cuh"
#include "ops/harness/ceilings.h"

namespace millrace::ops {
namespace {

constexpr int kReadThreads = 512;
constexpr int kReads = 8;  // of 16 bytes each, under way in a thread

__device__ uint32_t folded(uint4 v) {
  return v.x ^ v.y ^ v.z ^ v.w;
}

// The bound of one block keeps the compiler from moving loads next to their uses to save registers.
__global__ void __launch_bounds__(kReadThreads, 1)
    read_all(const uint4* from, int64_t packs, uint32_t* sink) {
  device::wait_for_predecessor();
  device::let_successor_start();
  const int64_t step = int64_t{gridDim.x} * kReadThreads;
  uint32_t total = 0;
  for (int64_t i = int64_t{blockIdx.x} * kReadThreads + threadIdx.x;
       i + (kReads - 1) * step < packs; i += kReads * step) {
    uint4 v[kReads];
#pragma unroll
    for (int k = 0; k < kReads; ++k)
      asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(v[k].x), "=r"(v[k].y), "=r"(v[k].z), "=r"(v[k].w)
                   : "l"(from + i + k * step));
#pragma unroll
    for (int k = 0; k < kReads; ++k)
      total ^= folded(v[k]);
  }
  if (total == 0x12345678u) *sink = total;
}

constexpr int kFmaThreads = 512, kChains = 16, kRounds = 4096;

__global__ void __launch_bounds__(kFmaThreads) multiply_add_all(float factor, float* sink) {
  device::wait_for_predecessor();
  float sums[kChains];
#pragma unroll
  for (int k = 0; k < kChains; ++k)
    sums[k] = static_cast<float>(k) + static_cast<float>(threadIdx.x);
  for (int round = 0; round < kRounds; ++round) {
#pragma unroll
    for (int k = 0; k < kChains; ++k)
      sums[k] = fmaf(sums[k], factor, 1.0F);
  }
  float total = 0;
#pragma unroll
  for (int k = 0; k < kChains; ++k)
    total += sums[k];
  if (total == 1.0F) *sink = total;
}

constexpr int kGroups = 2;  // of 128 threads
constexpr int kTensorRounds = 4096;
constexpr int kTileColumns = 256;  // wgmma m64n256k16
constexpr int kOperandBytes = 64 * 1024;

// A matrix in shared memory without swizzle; what lies where does not matter to the time.
[[maybe_unused]] __device__ uint64_t descriptor(uint32_t address) {
  constexpr uint64_t kStep = (uint64_t{128 >> 4} << 16) | (uint64_t{256 >> 4} << 32);
  return ((address & 0x3ffffu) >> 4) | kStep;
}

#define MILLRACE_REP8(m, i) \
  m(i), m(i + 1), m(i + 2), m(i + 3), m(i + 4), m(i + 5), m(i + 6), m(i + 7)
#define MILLRACE_REP64(m, i)                                                        \
  MILLRACE_REP8(m, i), MILLRACE_REP8(m, i + 8), MILLRACE_REP8(m, i + 16),           \
      MILLRACE_REP8(m, i + 24), MILLRACE_REP8(m, i + 32), MILLRACE_REP8(m, i + 40), \
      MILLRACE_REP8(m, i + 48), MILLRACE_REP8(m, i + 56)
#define MILLRACE_SUM(i) "+f"(sums[i])

[[maybe_unused]] __device__ void multiply_tile(float (&sums)[128], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
      "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
      "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
      "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
      "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"
      "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"
      "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127},"
      "%128, %129, 1, 1, 1, 0, 0;\n}\n"
      : MILLRACE_REP64(MILLRACE_SUM, 0), MILLRACE_REP64(MILLRACE_SUM, 64)
      : "l"(a), "l"(b));
}

/// For Hopper.
__global__ void __launch_bounds__(kGroups * 128, 1) multiply_tiles([[maybe_unused]] float* sink) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) uint32_t operands[];
  device::wait_for_predecessor();
  for (int i = static_cast<int>(threadIdx.x); i < kOperandBytes / 4; i += kGroups * 128) {
    // Two bf16 numbers in [1, 2) with random signs and fractions.
    const uint32_t random = (static_cast<uint32_t>(i) + 1) * 0x9e3779b9u;
    operands[i] = ((random ^ (random >> 15)) & 0x807f807fu) | 0x3f803f80u;
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  const auto base = static_cast<uint32_t>(__cvta_generic_to_shared(operands));
  float sums[128] = {};
  for (int round = 0; round < kTensorRounds / 4; ++round) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k)
      multiply_tile(sums, descriptor(base + k * 2048), descriptor(base + 16384 + k * 8192));
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
  float total = 0;
#pragma unroll
  for (const float sum : sums)
    total += sum;
  if (total == 1.0F) *sink = total;
#endif
}

#undef MILLRACE_SUM
#undef MILLRACE_REP64
#undef MILLRACE_REP8

constexpr int kFragmentThreads = 256, kFragments = 16;

/// For other GPUs: products of 16 x 8 x 16 on numbers in registers.
__global__ void __launch_bounds__(kFragmentThreads) multiply_fragments(float* sink) {
  device::wait_for_predecessor();
  uint32_t numbers[6];
#pragma unroll
  for (uint32_t i = 0; i < 6; ++i) {
    const uint32_t random = (threadIdx.x * 6 + i + 1) * 0x9e3779b9u;
    numbers[i] = ((random ^ (random >> 15)) & 0x807f807fu) | 0x3f803f80u;
  }
  float sums[kFragments][4] = {};
  for (int round = 0; round < kTensorRounds; ++round) {
#pragma unroll
    for (auto& s : sums) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
          "{%8,%9}, {%0,%1,%2,%3};"
          : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
          : "r"(numbers[0]), "r"(numbers[1]), "r"(numbers[2]), "r"(numbers[3]), "r"(numbers[4]),
            "r"(numbers[5]));
    }
  }
  float total = 0;
#pragma unroll
  for (const auto& s : sums)
    total += s[0] + s[1] + s[2] + s[3];
  if (total == 1.0F) *sink = total;
}

}  // namespace

Ceilings measure_cuda_ceilings(device::Device& device) {
  const auto sms = static_cast<unsigned>(device.properties().threads);
  const device::Queue& queue = device.queue();
  const auto sink = device.allocate(64, "ceiling measurement");
  const auto median_of = [&](int launches, FunctionRef<void(int)> work) {
    return device::median(device::time_launches(device, launches, 9, work));
  };
  Ceilings ceilings;
  constexpr int64_t kBytes = int64_t{2} << 30;
  const auto memory = device.allocate(kBytes, "bandwidth measurement");
  ceilings.read_gb_per_s =
      kBytes / 1e9 / median_of(4, [&](int) {
        device::launch_kernel("read_all", queue, 4 * sms, kReadThreads, 0, read_all,
                              reinterpret_cast<const uint4*>(memory->data()), kBytes / 16,
                              reinterpret_cast<uint32_t*>(sink->data()));
      });
  const double multiply_adds = 2.0 * 4 * sms * kFmaThreads * kChains * kRounds;
  ceilings.fma_gflop_per_s =
      multiply_adds / 1e9 / median_of(8, [&](int) {
        device::launch_kernel("multiply_add_all", queue, 4 * sms, kFmaThreads, 0, multiply_add_all,
                              0.999F, reinterpret_cast<float*>(sink->data()));
      });
  if (device.properties().sm != 90) {
    constexpr unsigned kBlocks = 4;  // on a multiprocessor, one after the other or together
    const double products =
        2.0 * 16 * 8 * 16 * kFragments * kTensorRounds * (kFragmentThreads / kWarp) * kBlocks * sms;
    ceilings.bf16_gflop_per_s =
        products / 1e9 / median_of(8, [&](int) {
          device::launch_kernel("multiply_fragments", queue, kBlocks * sms, kFragmentThreads, 0,
                                multiply_fragments, reinterpret_cast<float*>(sink->data()));
        });
    return ceilings;
  }
  device::allow_shared("multiply_tiles", multiply_tiles, kOperandBytes);
  const double products = 2.0 * 64 * kTileColumns * 16 * kTensorRounds * kGroups * sms;
  ceilings.bf16_gflop_per_s =
      products / 1e9 / median_of(16, [&](int) {
        device::launch_kernel("multiply_tiles", queue, sms, kGroups * 128, kOperandBytes,
                              multiply_tiles, reinterpret_cast<float*>(sink->data()));
      });
  return ceilings;
}

}  // namespace millrace::ops
