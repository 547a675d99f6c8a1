#include "device/cuda/tensor_map.h"

#include <algorithm>
#include <array>

#include <cuda_runtime_api.h>

#include "base/check.h"
#include "base/error.h"
#include "device/cuda/check_cuda.h"

namespace millrace::device {
namespace {

constexpr size_t kMaxRank = 5;
constexpr int kVersion = 12000;  // of CUDA, that has the function as it is declared here

/// From the driver that is loaded: the program does not link to libcuda, which is only there where
/// a GPU is.
auto encode_function() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kVersion,
                                              cudaEnableDefault, &found),
             "cudaGetDriverEntryPointByVersion", "cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw_failed("the NVIDIA driver has no cuTensorMapEncodeTiled", "tensor maps",
                 "update the driver");
  }
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

CUtensorMapSwizzle driver_swizzle(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::kNone:
      return CU_TENSOR_MAP_SWIZZLE_NONE;
    case Swizzle::k64Bytes:
      return CU_TENSOR_MAP_SWIZZLE_64B;
    case Swizzle::k128Bytes:
      return CU_TENSOR_MAP_SWIZZLE_128B;
  }
  return CU_TENSOR_MAP_SWIZZLE_NONE;
}

std::string to_string(std::initializer_list<int64_t> numbers) {
  std::string text;
  for (const int64_t number : numbers)
    text += str(text.empty() ? "" : " ", number);
  return text;
}

}  // namespace

CUtensorMap make_tensor_map(const void* data, std::initializer_list<int64_t> dims,
                            std::initializer_list<int64_t> strides,
                            std::initializer_list<int64_t> box, Swizzle swizzle) {
  static const auto encode = encode_function();
  const size_t rank = dims.size();
  CHECK(rank >= 2 && rank <= kMaxRank && strides.size() == rank - 1 && box.size() == rank);
  std::array<cuuint64_t, kMaxRank> driver_dims{}, driver_strides{};
  std::array<cuuint32_t, kMaxRank> driver_box{}, steps{};
  std::ranges::copy(dims, driver_dims.begin());
  std::ranges::copy(box, driver_box.begin());
  std::ranges::transform(strides, driver_strides.begin(),
                         [](int64_t stride) { return static_cast<cuuint64_t>(stride) * 2; });
  steps.fill(1);
  CUtensorMap map;
  // The second-level cache gets lines of 128 bytes, as they are asked for. With pairs of lines (256
  // bytes) reading a weight of 235 MB once takes an H200 54.4 to 56.0 us instead of 50.7 to 52.4.
  // Copies keep the bits: the type of 16-bit elements says nothing but their size.
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(rank),
             const_cast<void*>(data), driver_dims.data(), driver_strides.data(), driver_box.data(),
             steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, driver_swizzle(swizzle),
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  CHECK(status == CUDA_SUCCESS, "cuTensorMapEncodeTiled refused (", static_cast<int>(status),
        ") dims ", to_string(dims), ", strides ", to_string(strides), ", box ", to_string(box));
  return map;
}

}  // namespace millrace::device
