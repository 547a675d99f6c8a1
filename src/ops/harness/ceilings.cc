#include "ops/harness/ceilings.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>

#include "base/function_ref.h"
#include "base/thread_pool.h"
#include "ops/common/cpu_tactic.h"
#include "ops/harness/ceiling_kernels.h"

namespace millrace::ops {
namespace {

double seconds_of(FunctionRef<void()> function) {
  const auto start = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The best of some runs: what the machine can do when nobody disturbs it.
double best_seconds(int runs, FunctionRef<void()> function) {
  double best = seconds_of(function);
  for (int i = 1; i < runs; ++i)
    best = std::min(best, seconds_of(function));
  return best;
}

/// Keeps results alive.
std::atomic<float> sink;

CeilingKernels best_kernels([[maybe_unused]] device::CpuIsa isa) {
  MILLRACE_ON_X86(if (isa >= device::CpuIsa::kAvx512) return ceiling_kernels_avx512();
                  if (isa >= device::CpuIsa::kAvx2) return ceiling_kernels_avx2();)
  return ceiling_kernels_cpu();
}

double gb_per_s(device::Device& device, const CeilingKernels& kernels) {
  const device::Properties& properties = device.properties();
  ThreadPool& pool = *device.queue().pool;
  constexpr int64_t kLeast = int64_t{128} << 20, kMost = int64_t{2} << 30;
  const int64_t wanted = std::clamp(4 * properties.last_cache_bytes, kLeast, kMost);
  const int64_t share_bytes =
      std::min(wanted, device.free_bytes() / 4) / pool.thread_count() / 4096 * 4096;
  const auto memory = device.allocate(share_bytes * pool.thread_count(), "bandwidth measurement");
  const auto each_share = [&](FunctionRef<void(std::byte*)> function) {
    pool.run([&](int index, int) { function(memory->data() + index * share_bytes); });
  };
  // Every page is written first: untouched ones all show the same page of zeros.
  each_share([&](std::byte* p) { std::memset(p, 0, static_cast<size_t>(share_bytes)); });
  const double seconds = best_seconds(5, [&] {
    each_share([&](std::byte* p) {
      sink = kernels.read(reinterpret_cast<const float*>(p), share_bytes / 4);
    });
  });
  return static_cast<double>(memory->size()) / seconds / 1e9;
}

double gflop_per_s(ThreadPool& pool, const CeilingKernels& kernels) {
  const auto run = [&](int64_t rounds) {
    return best_seconds(5,
                        [&] { pool.run([&](int, int) { sink = kernels.multiply_add(rounds); }); });
  };
  constexpr int64_t kTrial = 20000;
  constexpr double kEnough = 0.02;  // seconds: clocks have settled
  const auto rounds = static_cast<int64_t>(kTrial * std::max(1.0, kEnough / run(kTrial)));
  const double flops = static_cast<double>(rounds * kernels.flops_per_round) * pool.thread_count();
  return flops / run(rounds) / 1e9;
}

}  // namespace

Bound lower_bound(const Cost& cost, const Arithmetic& arithmetic, const Ceilings& ceilings) {
  const bool on_tensor_cores =
      arithmetic.device == device::Kind::kCuda && ir::dtype_size(arithmetic.x) == 2;
  const bool is_bf16 = on_tensor_cores || arithmetic.tactic.ends_with("bf16");
  const double peak = is_bf16 ? ceilings.bf16_gflop_per_s : ceilings.fma_gflop_per_s;
  const double memory = ceilings.read_gb_per_s > 0 ? cost.bytes / ceilings.read_gb_per_s / 1e9 : 0;
  const double compute = peak > 0 ? cost.flops / peak / 1e9 : 0;
  return {std::max(memory, compute), memory >= compute};
}

Ceilings measure_ceilings(device::Device& device) {
  const device::Properties& properties = device.properties();
#if defined(MILLRACE_CUDA)
  if (properties.kind == device::Kind::kCuda) return measure_cuda_ceilings(device);
#endif
  const CeilingKernels kernels = best_kernels(properties.isa);
  Ceilings ceilings;
  ceilings.read_gb_per_s = gb_per_s(device, kernels);
  ThreadPool& pool = *device.queue().pool;
  ceilings.fma_gflop_per_s = gflop_per_s(pool, kernels);
  MILLRACE_ON_X86(if (properties.isa >= device::CpuIsa::kAvx512Bf16) {
    ceilings.bf16_gflop_per_s = gflop_per_s(pool, ceiling_kernels_avx512bf16());
  })
  return ceilings;
}

}  // namespace millrace::ops
