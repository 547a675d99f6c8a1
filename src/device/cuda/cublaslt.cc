#include "device/cuda/cublaslt.h"

#include <filesystem>
#include <map>
#include <mutex>
#include <system_error>

#include <dlfcn.h>

#include "base/error.h"

namespace millrace::device {
namespace {

constexpr const char* kLibrary = "libcublasLt.so.13";
constexpr size_t kMajorVersion = 13;

/// The library by the loader's path, of the usual toolkit, or beside the program; else null.
void* open_library() {
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  for (const std::string& path : {std::string(kLibrary), str("/usr/local/cuda/lib64/", kLibrary),
                                  (program.parent_path() / kLibrary).string()}) {
    if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  }
  return nullptr;
}

struct Opened {
  CublasLt functions;
  size_t version = 0;
  std::string missing;
};

Opened open() {
  Opened opened;
  void* library = open_library();  // never closed: handles refer to it
  if (library == nullptr) {
    opened.missing = str(kLibrary, " is not installed");
    return opened;
  }
  const auto find = [&](const char* name, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, name));
    if (*function == nullptr) opened.missing = str(kLibrary, " has no ", name);
  };
  decltype(&cublasLtGetVersion) version = nullptr;
  CublasLt& f = opened.functions;
  find("cublasLtGetVersion", &version);
  find("cublasLtCreate", &f.create);
  find("cublasLtGetStatusString", &f.status_string);
  find("cublasLtMatmulDescInit_internal", &f.init_product);
  find("cublasLtMatmulDescSetAttribute", &f.set_product);
  find("cublasLtMatrixLayoutInit_internal", &f.init_layout);
  find("cublasLtMatmulPreferenceInit_internal", &f.init_preference);
  find("cublasLtMatmulPreferenceSetAttribute", &f.set_preference);
  find("cublasLtMatmulAlgoGetHeuristic", &f.find_algorithms);
  find("cublasLtMatmul", &f.multiply);
  if (opened.missing.empty()) opened.version = version();
  if (opened.missing.empty() && opened.version / 10000 != kMajorVersion) {
    opened.missing = str(kLibrary, " is version ", opened.version, ", not ", kMajorVersion);
  }
  return opened;
}

const Opened& opened_once() {
  static const Opened opened = open();
  return opened;
}

}  // namespace

std::string cublaslt_missing() {
  return opened_once().missing;
}

std::string cublaslt_version() {
  const Opened& opened = opened_once();
  return opened.missing.empty() ? str(opened.version) : "none";
}

const CublasLt& cublaslt() {
  const Opened& opened = opened_once();
  if (!opened.missing.empty()) {
    throw_failed(opened.missing, "cuBLASLt",
                 "install it where LD_LIBRARY_PATH finds it, or build the engine anew without it");
  }
  return opened.functions;
}

cublasLtHandle_t cublaslt_handle(int device) {
  static std::mutex mutex;
  static std::map<int, cublasLtHandle_t> handles;  // kept: at exit the driver may be gone already
  const CublasLt& lt = cublaslt();
  const std::scoped_lock lock(mutex);
  const auto found = handles.find(device);
  if (found != handles.end()) return found->second;
  cublasLtHandle_t handle = nullptr;
  check_cublaslt(lt.create(&handle), "cublasLtCreate", str("GPU ", device));
  handles.emplace(device, handle);
  return handle;
}

void check_cublaslt(cublasStatus_t status, const char* what, const std::string& where) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw_failed(str("cuBLASLt: ", what, " failed: ", cublaslt().status_string(status)), where,
               "check the GPU with nvidia-smi; report it if it happens again");
}

}  // namespace millrace::device
