// What launches depend on beside the hardware and this program.
#pragma once

#include <string>

namespace millrace::device {

/// The CUDA version of the NVIDIA driver and the version of cuBLASLt, "driver 13000, cuBLASLt
/// 130101"; "none" for what is not there. Opens the library.
std::string cuda_software();

/// Why cuBLASLt cannot be used; empty when it can. The first call opens it.
std::string cublaslt_missing();

/// "130101"; "none" when cublaslt_missing().
std::string cublaslt_version();

}  // namespace millrace::device
