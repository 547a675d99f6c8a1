// What launches depend on beside the hardware and this program.
#pragma once

#include <string>

namespace millrace::device {

/// The CUDA version of the NVIDIA driver and the version of cuBLASLt, "driver 13000, cuBLASLt
/// 130101"; "none" for what is not there. Opens the library.
std::string cuda_software();

}  // namespace millrace::device
