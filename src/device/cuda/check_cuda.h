// Errors of the CUDA runtime as millrace::Error.
#pragma once

#include <string>

#include <cuda_runtime_api.h>

namespace millrace::device {

/// Throws Error (kFailed) that says what failed, where and why, unless `status` is success.
void check_cuda(cudaError_t status, const char* what, const std::string& where = "");

}  // namespace millrace::device
