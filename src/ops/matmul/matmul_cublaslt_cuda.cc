// Products by cuBLASLt, where it is installed. The profiler times the library's first proposals
// against each other and against our own kernels.
//
// The library counts by columns: a row-major [T, N] is its [N, T], so that
//   out [N, T] = f(weight [K, N]^T * x [K, T] + residual [N, T] + bias [N])
// It chooses kernels, and with them the order of a sum, by T: a row's bits depend on T, though not
// on the other rows, and are the same in every run.
#include <algorithm>
#include <array>
#include <compare>
#include <initializer_list>
#include <map>
#include <mutex>
#include <span>
#include <vector>

#include <cuda_runtime_api.h>

#include "base/error.h"
#include "device/cuda/check_cuda.h"
#include "device/cuda/cublaslt.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_cpu.h"
#include "ops/matmul/matmul_cuda.h"

namespace millrace::ops {
namespace {

constexpr const char* kName = "matmul_cublaslt";
constexpr int kProposals = 4;                  // that are asked for: as many tactics
constexpr int64_t kWorkspaceBytes = 32 << 20;  // with less, large K gets slow kernels on Hopper
// What the choice of an algorithm assumes of pointers, and the most that kernels ask for. Not what
// each pointer happens to have: bits must not depend on where a buffer lies.
constexpr uint32_t kAlignment = 16;

/// All that the choice of an algorithm depends on.
struct Product {
  int device = 0;
  int64_t rows = 0, cols = 0, depth = 0;
  ir::DType type = ir::DType::kF32, out_type = ir::DType::kF32;
  bool bias = false, relu = false;
  uint32_t alignment = kAlignment;
  auto operator<=>(const Product&) const = default;
};

std::string to_string(const Product& p) {
  return str(kName, " ", p.rows, " x ", p.cols, " x ", p.depth, " ", ir::dtype_name(p.type), " to ",
             ir::dtype_name(p.out_type));
}

/// kAlignment, or less where a pointer has less.
uint32_t alignment_of(const MatmulJob& job) {
  uintptr_t bits = kAlignment;
  for (const void* pointer :
       std::initializer_list<const void*>{job.x, job.weight, job.bias, job.residual, job.out})
    bits |= reinterpret_cast<uintptr_t>(pointer);
  return static_cast<uint32_t>(bits & (~bits + 1));  // the lowest bit
}

Product product_of(const MatmulJob& job) {
  Product p{.rows = job.rows,
            .cols = job.cols,
            .depth = job.depth,
            .type = job.x_type,
            .out_type = job.out_type,
            .bias = job.bias != nullptr,
            .relu = job.activation == ActivationKind::kRelu,
            .alignment = alignment_of(job)};
  device::check_cuda(cudaGetDevice(&p.device), "cudaGetDevice");
  return p;
}

cudaDataType_t data_type(ir::DType type) {
  if (type == ir::DType::kF32) return CUDA_R_32F;
  return type == ir::DType::kBF16 ? CUDA_R_16BF : CUDA_R_16F;
}

cublasLtEpilogue_t epilogue_of(const Product& p) {
  if (p.relu) return p.bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
  return p.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

/// What the library wants to be told, all of it on the stack.
struct Descriptors {
  Descriptors(const Product& p, const void* bias) {
    // Sums in float; float factors are not cut to TF32.
    const device::CublasLt& lt = device::cublaslt();
    const auto check = [](cublasStatus_t status) {
      device::check_cublaslt(status, "a descriptor", kName);
    };
    check(lt.init_product(&product, sizeof(product), CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
      check(lt.set_product(&product, attribute, &value, sizeof(value)));
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t{CUBLAS_OP_T});
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<uint32_t>(epilogue_of(p)));
    if (p.bias) {
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t{data_type(p.out_type)});
    }
    const auto layout = [&](cublasLtMatrixLayoutOpaque_t* to, ir::DType type, int64_t height,
                            int64_t width) {
      check(lt.init_layout(to, sizeof(*to), data_type(type), static_cast<uint64_t>(height),
                           static_cast<uint64_t>(width), height));
    };
    layout(&weight, p.type, p.depth, p.cols);
    layout(&x, p.type, p.depth, p.rows);
    layout(&out, p.out_type, p.cols, p.rows);
  }

  cublasLtMatmulDescOpaque_t product;
  cublasLtMatrixLayoutOpaque_t weight, x, out;
};

cublasLtMatmulPreferenceOpaque_t preference_of(const Product& p) {
  const device::CublasLt& lt = device::cublaslt();
  const auto check = [](cublasStatus_t status) {
    device::check_cublaslt(status, "a preference", kName);
  };
  cublasLtMatmulPreferenceOpaque_t preference;
  check(lt.init_preference(&preference, sizeof(preference)));
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check(lt.set_preference(&preference, attribute, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
  // Parts of K may be summed apart, then in float and in one order: not in out itself, where blocks
  // take turns, nor rounded to its type.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(attribute, p.alignment);
  }
  return preference;
}

/// What the library proposes for a product, the best by its own estimate first; no two alike.
using Proposals = std::vector<cublasLtMatmulAlgo_t>;

bool contains(const Proposals& proposals, const cublasLtMatmulAlgo_t& algorithm) {
  return std::ranges::any_of(proposals, [&](const cublasLtMatmulAlgo_t& other) {
    return std::ranges::equal(other.data, algorithm.data);
  });
}

Proposals find_proposals(const Product& p) {
  // The bias counts by its alignment only; its address would make the choice depend on it.
  Descriptors d(p, reinterpret_cast<const void*>(uintptr_t{p.alignment}));
  cublasLtMatmulPreferenceOpaque_t preference = preference_of(p);
  std::array<cublasLtMatmulHeuristicResult_t, kProposals> results{};
  int count = 0;
  const cublasStatus_t status = device::cublaslt().find_algorithms(
      device::cublaslt_handle(p.device), &d.product, &d.weight, &d.x, &d.out, &d.out, &preference,
      kProposals, results.data(), &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return {};
  device::check_cublaslt(status, "cublasLtMatmulAlgoGetHeuristic", to_string(p));
  Proposals proposals;
  for (const auto& result : std::span(results).first(static_cast<size_t>(count))) {
    if (result.state != CUBLAS_STATUS_SUCCESS) continue;
    if (!contains(proposals, result.algo)) proposals.push_back(result.algo);
  }
  return proposals;
}

/// The same for every call with this product: searched once. THREAD: safe.
const Proposals& proposals_for(const Product& p) {
  static std::mutex mutex;
  static std::map<Product, Proposals> known;
  const std::scoped_lock lock(mutex);
  auto found = known.find(p);
  if (found == known.end()) found = known.emplace(p, find_proposals(p)).first;
  return found->second;
}

/// While a graph is captured, the library may load a kernel. Choosing an algorithm then can fail
/// with some of its versions; steps run once before they are captured, which chooses all.
class RelaxedCapture {
 public:
  RelaxedCapture() { exchange(); }
  ~RelaxedCapture() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  void exchange() {
    device::check_cuda(cudaThreadExchangeStreamCaptureMode(&mode_),
                       "cudaThreadExchangeStreamCaptureMode");
  }
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

std::string why_not_types(const MatmulJob& job) {
  if (job.weight_type != job.x_type) return "x and the weight have different types";
  if (job.out_type != job.x_type && job.out_type != ir::DType::kF32) {
    return "the output is neither f32 nor of x's type";
  }
  return job.depth == 0 ? "K is 0" : "";
}

/// `bias` and `residual` say whether there are any: no pointers yet.
std::string why_not_epilogue(const MatmulJob& job, bool bias, bool residual) {
  if (bias && job.bias_type != job.out_type) return "bias and output have different types";
  if (residual && job.out_type != job.x_type) return "residual and output have different types";
  if (job.activation == ActivationKind::kNone || !residual) return "";
  return "the activation would come after the residual";
}

}  // namespace

/// The library's GELU is an approximation of unstated accuracy, and others it has none.
bool matmul_cublaslt_activates(const Launch& launch) {
  return *parse_activation(launch.attrs<Matmul>().activation) == ActivationKind::kRelu;
}

std::string matmul_cublaslt_why_not(const Launch& launch, const device::Properties& device,
                                    int place) {
  if (device.kind != device::Kind::kCuda) return "not a GPU";
  const MatmulJob job = matmul_job(launch);
  const auto& a = launch.attrs<Matmul>();
  if (std::string reason = why_not_types(job); !reason.empty()) return reason;
  if (std::string reason = why_not_epilogue(job, a.bias, a.residual); !reason.empty()) {
    return reason;
  }
  if (std::string reason = device::cublaslt_missing(); !reason.empty()) return reason;
  if (job.rows == 0 || job.cols == 0) return "";
  try {
    Product p = product_of(job);
    p.bias = a.bias;
    const size_t count = proposals_for(p).size();
    if (count == 0) return "cuBLASLt has no algorithm for it";
    return static_cast<size_t>(place) < count ? "" : str("cuBLASLt proposes only ", count);
  } catch (const Error& error) {  // an old driver, no memory: others can run
    return error.what();
  }
}

int64_t matmul_cublaslt_workspace(const Launch&, const device::Properties&) {
  return kWorkspaceBytes;
}

// The library's kernels start when all before them in the stream have ended: they are launched
// without programmatic dependent launch. A kernel of ours that comes next may start early, but its
// griddepcontrol.wait returns only when the grid before it has ended and its writes are visible,
// whether or not that grid knows of dependents.
void matmul_cublaslt(const Launch& launch, int place) {
  const MatmulJob job = matmul_job(launch);
  if (job.rows == 0 || job.cols == 0) return;
  const RelaxedCapture relaxed;
  const Product p = product_of(job);
  const Proposals& proposals = proposals_for(p);
  if (proposals.empty()) {
    throw_failed("cuBLASLt has no algorithm", to_string(p), "build the engine anew");
  }
  // A tactic was chosen for some number of rows; with fewer there may be fewer proposals.
  const auto& algorithm = proposals[std::min(static_cast<size_t>(place), proposals.size() - 1)];
  Descriptors d(p, job.bias);
  const float alpha = 1;
  const float beta = job.residual == nullptr ? 0 : 1;
  const void* added = job.residual == nullptr ? job.out : job.residual;  // not read when beta is 0
  device::check_cublaslt(
      device::cublaslt().multiply(device::cublaslt_handle(p.device), &d.product, &alpha, job.weight,
                                  &d.weight, job.x, &d.x, &beta, added, &d.out, job.out, &d.out,
                                  &algorithm, launch.workspace, kWorkspaceBytes,
                                  static_cast<cudaStream_t>(launch.queue->stream)),
      "cublasLtMatmul", to_string(p));
}

}  // namespace millrace::ops
