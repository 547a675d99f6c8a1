// The CPU tactics: rows sorted by expert, then one expert after the other by the kernels of matmul.
#include <algorithm>
#include <cstring>
#include <span>

#include "base/thread_pool.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/matmul_split.h"
#include "ops/moe_matmul/moe_matmul_tactics.h"

namespace millrace::ops {
namespace {

#if defined(__x86_64__)

/// Rows of an expert at a time: what the kernel for many rows takes.
constexpr int64_t kPieceRows = PanelsKernel::kMaxRows;

int64_t aligned(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

/// The workspace: slots sorted by expert, where each expert's begin, the rows of a piece side by
/// side, its results, and what the kernel packs.
struct Workspace {
  int64_t begins, x, out, packed, size;  // offsets in bytes; the slots come first

  explicit Workspace(const MoeMatmulJob& job, const PanelsKernel* panels) {
    const int64_t rows = std::min(kPieceRows, job.slots);
    begins = aligned(job.slots * 4);
    x = begins + aligned((job.experts + 1) * 4);
    out = x + aligned(rows * job.depth * 4);
    packed = out + aligned(rows * job.cols * 4);
    size = packed + (panels == nullptr ? 0 : panels_workspace_bytes(*panels, rows, job.depth));
  }
};

class GroupedProduct {
 public:
  GroupedProduct(const Launch& launch, RowsKernel rows, const PanelsKernel* panels)
      : job_(moe_matmul_job(launch)),
        rows_(rows),
        panels_(panels),
        at_(job_, panels),
        memory_(static_cast<std::byte*>(launch.workspace)),
        pool_(launch.pool()),
        slots_(reinterpret_cast<int32_t*>(memory_)),
        begins_(reinterpret_cast<int32_t*>(memory_ + at_.begins)) {}

  void run() {
    sort_slots();
    for (int64_t expert = 0; expert < job_.experts; ++expert) {
      for (int64_t begin = begins_[expert]; begin < begins_[expert + 1]; begin += kPieceRows) {
        const int64_t end = std::min<int64_t>(begin + kPieceRows, begins_[expert + 1]);
        multiply(expert, {slots_ + begin, static_cast<size_t>(end - begin)});
      }
    }
  }

 private:
  /// By counting; slots of one expert stay in order.
  void sort_slots() {
    std::fill_n(begins_, job_.experts + 1, 0);
    for (int64_t slot = 0; slot < job_.slots; ++slot)
      ++begins_[job_.ids[slot] + 1];
    for (int64_t expert = 0; expert < job_.experts; ++expert)
      begins_[expert + 1] += begins_[expert];
    for (int64_t slot = 0; slot < job_.slots; ++slot)
      slots_[begins_[job_.ids[slot]]++] = static_cast<int32_t>(slot);
    // Each begin has become the next one's.
    std::copy_backward(begins_, begins_ + job_.experts, begins_ + job_.experts + 1);
    begins_[0] = 0;
  }

  const float* x_row(int32_t slot) const {
    return static_cast<const float*>(job_.x) + slot / job_.slots_per_x * job_.depth;
  }
  float* out_row(int32_t slot) const { return static_cast<float*>(job_.out) + slot * job_.cols; }

  /// One row is read and written where it lies, several are copied side by side and back.
  void multiply(int64_t expert, std::span<const int32_t> slots) const {
    const auto rows = static_cast<int64_t>(slots.size());
    MatmulJob job;
    job.weight = static_cast<const std::byte*>(job_.weight) +
                 expert * job_.cols * job_.depth * ir::dtype_size(job_.weight_type);
    job.weight_type = job_.weight_type;
    if (job_.bias != nullptr) {
      job.bias = static_cast<const std::byte*>(job_.bias) +
                 expert * job_.cols * ir::dtype_size(job_.bias_type);
      job.bias_type = job_.bias_type;
    }
    job.rows = rows;
    job.cols = job_.cols;
    job.depth = job_.depth;
    if (rows == 1) {
      job.x = x_row(slots[0]);
      job.out = out_row(slots[0]);
      run_kernel(job);
      return;
    }
    auto* x = reinterpret_cast<float*>(memory_ + at_.x);
    auto* out = reinterpret_cast<float*>(memory_ + at_.out);
    job.x = x;
    job.out = out;
    copy_rows(rows, job_.depth, [&](int64_t i) {
      return std::pair{x_row(slots[static_cast<size_t>(i)]), x + i * job_.depth};
    });
    run_kernel(job);
    copy_rows(rows, job_.cols, [&](int64_t i) {
      return std::pair{out + i * job_.cols, out_row(slots[static_cast<size_t>(i)])};
    });
  }

  /// `row(i)`: where row i comes from and goes to.
  template <typename Row>
  void copy_rows(int64_t rows, int64_t width, const Row& row) const {
    constexpr int64_t kElementsPerTask = 16384;
    pool_.parallel_ranges(rows, std::max<int64_t>(1, kElementsPerTask / width),
                          [&](int64_t begin, int64_t end) {
                            for (int64_t i = begin; i < end; ++i) {
                              const auto [from, to] = row(i);
                              std::memcpy(to, from, static_cast<size_t>(width) * 4);
                            }
                          });
  }

  void run_kernel(const MatmulJob& job) const {
    if (panels_ != nullptr) {
      multiply_by_panels(*panels_, job, memory_ + at_.packed, pool_);
    } else {
      multiply_by_rows(rows_, job, pool_);
    }
  }

  const MoeMatmulJob job_;
  const RowsKernel rows_;
  const PanelsKernel* const panels_;
  const Workspace at_;
  std::byte* const memory_;
  ThreadPool& pool_;
  int32_t* const slots_;
  int32_t* const begins_;
};

template <RowsKernel kKernel>
void run_rows(const Launch& launch) {
  GroupedProduct(launch, kKernel, nullptr).run();
}

template <const PanelsKernel& kKernel>
void run_panels(const Launch& launch) {
  GroupedProduct(launch, nullptr, &kKernel).run();
}

int64_t rows_workspace(const Launch& launch, const device::Properties& /*device*/) {
  return Workspace(moe_matmul_job(launch), nullptr).size;
}

template <const PanelsKernel& kKernel>
int64_t panels_workspace(const Launch& launch, const device::Properties& /*device*/) {
  return Workspace(moe_matmul_job(launch), &kKernel).size;
}

using device::CpuIsa;

template <CpuIsa kIsa>
std::string rows_why_not(const Launch& launch, const device::Properties& device) {
  if (std::string reason = needs_isa<kIsa>(launch, device); !reason.empty()) return reason;
  if (launch.in[0].dtype != ir::DType::kF32) return "x is not f32";
  return launch.out[0].dtype == ir::DType::kF32 ? "" : "the output is not f32";
}

/// Below some rows an expert, packing its weight does not pay. Trials cannot tell: their ids are
/// all the same.
template <CpuIsa kIsa>
std::string panels_why_not(const Launch& launch, const device::Properties& device) {
  constexpr int64_t kMinRows = 8;
  const MoeMatmulJob job = moe_matmul_job(launch);
  if (job.slots < kMinRows * job.experts) {
    return str("fewer than ", kMinRows, " rows an expert");
  }
  return rows_why_not<kIsa>(launch, device);
}

template <CpuIsa kIsa, RowsKernel kKernel>
constexpr Tactic rows_tactic(const char* name) {
  return {.name = name,
          .why_not = rows_why_not<kIsa>,
          .workspace = rows_workspace,
          .run = run_rows<kKernel>};
}

template <CpuIsa kIsa, const PanelsKernel& kKernel>
constexpr Tactic panels_tactic(const char* name) {
  return {.name = name,
          .why_not = panels_why_not<kIsa>,
          .workspace = panels_workspace<kKernel>,
          .run = run_panels<kKernel>};
}

#endif  // __x86_64__

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "moe_matmul_mma_cuda",
         .device = device::Kind::kCuda,
         .why_not = moe_matmul_mma_cuda_why_not,
         .workspace = moe_matmul_mma_cuda_workspace,
         .run = moe_matmul_mma_cuda},
        {.name = "moe_matmul_cuda", .device = device::Kind::kCuda, .run = moe_matmul_cuda}, )  //
    MILLRACE_ON_X86(rows_tactic<CpuIsa::kAvx512, matmul_rows_avx512>("moe_matmul_rows_avx512"),
                    panels_tactic<CpuIsa::kAvx512, kPanelsAvx512>("moe_matmul_panels_avx512"),
                    rows_tactic<CpuIsa::kAvx2, matmul_rows_avx2>("moe_matmul_rows_avx2"),
                    panels_tactic<CpuIsa::kAvx2, kPanelsAvx2>("moe_matmul_panels_avx2"), )  //
    {.name = "moe_matmul_ref", .run = moe_matmul_ref},
};

}  // namespace

std::span<const Tactic> moe_matmul_tactics() {
  return kTactics;
}

}  // namespace millrace::ops
