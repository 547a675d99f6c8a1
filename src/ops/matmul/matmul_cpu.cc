// The CPU tactics: when each can run. ops/common/matmul_split.h splits a product over threads.
#include "ops/matmul/matmul_cpu.h"

#include <algorithm>

#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/matmul_job.h"
#include "ops/common/matmul_split.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_composed_cuda.h"
#include "ops/matmul/matmul_cuda.h"

namespace millrace::ops {

MatmulJob matmul_job(const Launch& launch) {
  const auto& a = launch.attrs<Matmul>();
  const Tensor& x = launch.in[0];
  const Tensor& weight = launch.in[1];
  MatmulJob job;
  job.x = x.data;
  job.weight = weight.data;
  if (a.bias) job.bias = launch.in[2].data;
  if (a.bias) job.bias_type = launch.in[2].dtype;
  if (a.residual) job.residual = launch.in[a.bias ? 3 : 2].data;
  job.out = launch.out[0].data;
  job.rows = x.dim(0);
  job.cols = a.gated ? weight.dim(0) / 2 : weight.dim(0);
  job.depth = weight.dim(1);
  job.x_type = x.dtype;
  job.weight_type = weight.dtype;
  job.out_type = launch.out[0].dtype;
  job.activation = *parse_activation(a.activation);
  job.gated = a.gated;
  return job;
}

MatmulNorm matmul_norm(const Launch& launch) {
  const auto& a = launch.attrs<Matmul>();
  if (!a.normed()) return {};
  return {.weight = launch.in.back().data,
          .type = launch.in.back().dtype,
          .eps = static_cast<float>(a.norm_eps),
          .offset = static_cast<float>(a.norm_offset)};
}

namespace {

#if defined(__x86_64__)

constexpr int64_t kMaxRows = 32;
constexpr int64_t kMinPanelRows = 4;
constexpr int64_t kMinRoundedRows = 64;  // fewer are requests that generate, not a prompt

std::string why_not_types(const Launch& launch) {
  const auto is_f32 = [](const Tensor& tensor) { return tensor.dtype == ir::DType::kF32; };
  if (!is_f32(launch.in[0])) return "x is not f32";
  if (!is_f32(launch.out[0])) return "the output is not f32";
  if (launch.attrs<Matmul>().gated) return "the product is gated";
  return launch.attrs<Matmul>().normed() ? "x is normed first" : "";
}

template <RowsKernel kKernel>
void run_rows(const Launch& launch) {
  multiply_by_rows(kKernel, matmul_job(launch), launch.pool());
}

template <const PanelsKernel& kKernel>
void run_panels(const Launch& launch) {
  const MatmulJob all = matmul_job(launch);
  const int64_t passes = (all.rows + PanelsKernel::kMaxRows - 1) / PanelsKernel::kMaxRows;
  for (int64_t i = 0; i < passes; ++i) {
    const int64_t begin = all.rows * i / passes;
    MatmulJob job = all;
    job.rows = all.rows * (i + 1) / passes - begin;
    job.x = static_cast<const float*>(all.x) + begin * all.depth;
    job.out = static_cast<float*>(all.out) + begin * all.cols;
    if (all.residual != nullptr) {
      job.residual = static_cast<const float*>(all.residual) + begin * all.cols;
    }
    multiply_by_panels(kKernel, job, launch.workspace, launch.pool());
  }
}

template <const PanelsKernel& kKernel>
int64_t panels_workspace(const Launch& launch, const device::Properties& /*device*/) {
  const int64_t rows = std::min(launch.in[0].dim(0), PanelsKernel::kMaxRows);
  return panels_workspace_bytes(kKernel, rows, launch.in[0].dim(1));
}

using device::CpuIsa;

template <CpuIsa kIsa>
std::string rows_why_not(const Launch& launch, const device::Properties& device) {
  if (std::string reason = needs_isa<kIsa>(launch, device); !reason.empty()) return reason;
  if (launch.in[0].dim(0) > kMaxRows) return str("more than ", kMaxRows, " rows");
  return why_not_types(launch);
}

template <CpuIsa kIsa>
std::string panels_why_not(const Launch& launch, const device::Properties& device) {
  if (std::string reason = needs_isa<kIsa>(launch, device); !reason.empty()) return reason;
  if (launch.in[0].dim(0) < kMinPanelRows) return str("fewer than ", kMinPanelRows, " rows");
  if (std::string reason = why_not_types(launch); !reason.empty()) return reason;
  if (kIsa != CpuIsa::kAvx512Bf16) return "";
  if (launch.in[0].dim(0) < kMinRoundedRows) return str("fewer than ", kMinRoundedRows, " rows");
  if (launch.in[1].dtype != ir::DType::kBF16) return "the weight is not bf16";
  return launch.attrs<Matmul>().bf16_products ? "" : "x may not be rounded to bf16 (bf16_products)";
}

template <CpuIsa kIsa, RowsKernel kKernel>
constexpr Tactic rows_tactic(const char* name) {
  return {.name = name, .why_not = rows_why_not<kIsa>, .run = run_rows<kKernel>};
}

template <CpuIsa kIsa, const PanelsKernel& kKernel>
constexpr Tactic panels_tactic(const char* name) {
  return {.name = name,
          .why_not = panels_why_not<kIsa>,
          .workspace = panels_workspace<kKernel>,
          .run = run_panels<kKernel>};
}

#endif  // __x86_64__

#if defined(MILLRACE_CUDA)

/// One of several ways of a kernel: which is fastest is measured.
template <auto kWhyNot, int kPlace>
std::string why_not_at(const Launch& launch, const device::Properties& device) {
  return kWhyNot(launch, device, kPlace);
}

template <auto kRun, int kPlace>
void run_at(const Launch& launch) {
  kRun(launch, kPlace);
}

/// One of the library's proposals.
template <int kPlace>
constexpr MatmulKernel kCublaslt = {.run = run_at<matmul_cublaslt, kPlace>,
                                    .why_not = why_not_at<matmul_cublaslt_why_not, kPlace>,
                                    .workspace = matmul_cublaslt_workspace,
                                    .activates = matmul_cublaslt_activates};

template <int kPlace>
constexpr Tactic cublaslt_tactic(const char* name) {
  Tactic tactic = composed_tactic<kCublaslt<kPlace>>(name, false);
  tactic.lets_next_start = false;
  return tactic;
}

/// One of its cuts.
template <int kPlace>
constexpr MatmulKernel kSwap = {.run = run_at<matmul_swap_cuda, kPlace>,
                                .why_not = why_not_at<matmul_swap_cuda_why_not, kPlace>,
                                .workspace = matmul_swap_cuda_workspace,
                                .gates = matmul_swap_cuda_gates};

constexpr MatmulKernel kRow = {.run = matmul_row_cuda, .why_not = matmul_row_cuda_why_not};
constexpr MatmulKernel kGemv = {.run = matmul_gemv_cuda,
                                .why_not = matmul_gemv_cuda_why_not,
                                .gates = matmul_gemv_cuda_gates,
                                .norms = matmul_gemv_cuda_norms};
constexpr MatmulKernel kStream = {.run = matmul_stream_cuda, .why_not = matmul_stream_cuda_why_not};
constexpr MatmulKernel kRowsMma = {.run = matmul_rows_mma_cuda,
                                   .why_not = matmul_rows_mma_cuda_why_not};
constexpr MatmulKernel kSplit = {.run = matmul_split_cuda,
                                 .why_not = matmul_split_cuda_why_not,
                                 .gates = matmul_wgmma_cuda_gates};
constexpr MatmulKernel kWgmma = {.run = matmul_wgmma_cuda,
                                 .why_not = matmul_wgmma_cuda_why_not,
                                 .gates = matmul_wgmma_cuda_gates};
constexpr MatmulKernel kMma = {.run = matmul_mma_cuda, .why_not = matmul_mma_cuda_why_not};
constexpr MatmulKernel kRows = {.run = matmul_rows_cuda, .why_not = matmul_rows_cuda_why_not};
constexpr MatmulKernel kAny = {.run = matmul_cuda};

void run_chain_of_one(const Launch& launch) {
  matmul_chain_cuda({&launch, 1});
}

constexpr Tactic kChain = {.name = "matmul_chain_cuda",
                           .device = device::Kind::kCuda,
                           .why_not = matmul_chain_cuda_why_not,
                           .run = run_chain_of_one,
                           .batch_invariant = false,
                           .run_chain = matmul_chain_cuda};

void run_series_of_one(const Launch& launch) {
  matmul_series_cuda({&launch, 1});
}

constexpr Tactic kSeries = {.name = "matmul_series_cuda",
                            .device = device::Kind::kCuda,
                            .why_not = matmul_series_cuda_why_not,
                            .workspace = matmul_series_cuda_workspace,
                            .run = run_series_of_one,
                            .batch_invariant = false,
                            .run_chain = matmul_series_cuda};

#endif  // MILLRACE_CUDA

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        composed_tactic<kRow>("matmul_row_cuda"), composed_tactic<kGemv>("matmul_gemv_cuda"),
        composed_tactic<kSwap<0>>("matmul_swap_cuda", false),
        composed_tactic<kSwap<1>>("matmul_swap_cuda_2", false),
        composed_tactic<kStream>("matmul_stream_cuda"),
        composed_tactic<kSplit>("matmul_split_cuda", false),
        composed_tactic<kRowsMma>("matmul_rows_mma_cuda"),
        composed_tactic<kWgmma>("matmul_wgmma_cuda"), composed_tactic<kMma>("matmul_mma_cuda"),
        composed_tactic<kRows>("matmul_rows_cuda"), composed_tactic<kAny>("matmul_cuda"),
        cublaslt_tactic<0>("matmul_cublaslt"), cublaslt_tactic<1>("matmul_cublaslt_2"),
        cublaslt_tactic<2>("matmul_cublaslt_3"), cublaslt_tactic<3>("matmul_cublaslt_4"), kChain,
        kSeries, )  //
    MILLRACE_ON_X86(
        rows_tactic<CpuIsa::kAvx512, matmul_rows_avx512>("matmul_rows_avx512"),
        panels_tactic<CpuIsa::kAvx512Bf16, kPanelsAvx512Bf16>("matmul_panels_avx512bf16"),
        panels_tactic<CpuIsa::kAvx512, kPanelsAvx512>("matmul_panels_avx512"),
        rows_tactic<CpuIsa::kAvx2, matmul_rows_avx2>("matmul_rows_avx2"),
        panels_tactic<CpuIsa::kAvx2, kPanelsAvx2>("matmul_panels_avx2"), ){
        .name = "matmul_ref", .workspace = matmul_ref_workspace, .run = run_matmul_ref},
};

}  // namespace

std::span<const Tactic> matmul_tactics() {
  return kTactics;
}

}  // namespace millrace::ops
