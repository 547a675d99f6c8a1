// cuBLASLt, opened at run time: the program neither links nor needs it
// (docs/decisions/0008_cublaslt_at_run_time.md).
#pragma once

#include <string>

#include <cublasLt.h>

#include "device/software.h"

namespace millrace::device {

/// The functions of the library that are used, as cublasLt.h declares them.
struct CublasLt {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtGetStatusString) status_string = nullptr;
  decltype(&cublasLtMatmulDescInit_internal) init_product = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_product = nullptr;
  decltype(&cublasLtMatrixLayoutInit_internal) init_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceInit_internal) init_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) find_algorithms = nullptr;
  decltype(&cublasLtMatmul) multiply = nullptr;
};

/// Throws Error (kFailed) when cublaslt_missing().
const CublasLt& cublaslt();

/// The handle of GPU `device`, which must be the thread's current one. Handles live as long as the
/// process. THREAD: safe.
cublasLtHandle_t cublaslt_handle(int device);

/// Throws Error (kFailed) that says what failed, where and why, unless `status` is success.
void check_cublaslt(cublasStatus_t status, const char* what, const std::string& where = "");

}  // namespace millrace::device
