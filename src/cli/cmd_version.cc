// millrace version: what this program is and what it finds.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/str.h"
#include "base/version.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "device/device.h"
#include "device/software.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::ordered_json;

Json describe(const device::Properties& p) {
  if (p.kind == device::Kind::kCuda) {
    return {{"kind", "cuda"}, {"name", p.name}, {"sm", p.sm}, {"memory_bytes", p.memory_bytes}};
  }
  return {{"kind", "cpu"},
          {"name", p.name},
          {"isa", device::isa_name(p.isa)},
          {"threads", p.threads},
          {"memory_bytes", p.memory_bytes}};
}

bool has_cuda() {
  const std::vector<std::string> built = device::back_ends();
  return std::find(built.begin(), built.end(), "cuda") != built.end();
}

/// "13.1.1"; empty when the library cannot be used.
std::string cublaslt_version() {
  if (!device::cublaslt_missing().empty()) return "";
  const int version = std::stoi(device::cublaslt_version());
  return str(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

int run(bool json) {
  std::vector<device::Properties> found = {device::make_cpu_device()->properties()};
  const std::string no_cuda = device::cuda_unusable();
  const std::vector<device::Properties> gpus = device::cuda_devices();
  found.insert(found.end(), gpus.begin(), gpus.end());
  const std::string cublaslt = cublaslt_version();
  if (json) {
    Json devices = Json::array();
    for (const device::Properties& p : found)
      devices.push_back(describe(p));
    Json line = {{"version", version()},
                 {"commit", commit()},
                 {"back_ends", device::back_ends()},
                 {"devices", std::move(devices)}};
    if (has_cuda()) line["cublaslt"] = cublaslt.empty() ? Json() : Json(cublaslt);
    std::puts(json_line(line).c_str());
    return 0;
  }
  std::printf("millrace %s (%s)\nback ends:", version(), commit());
  for (const std::string& name : device::back_ends())
    std::printf(" %s", name.c_str());
  std::puts("");
  for (const device::Properties& p : found) {
    const std::string memory = format_bytes(p.memory_bytes);
    if (p.kind == device::Kind::kCuda) {
      std::printf("cuda: %s, compute capability %d.%d, %s\n", p.name.c_str(), p.sm / 10, p.sm % 10,
                  memory.c_str());
    } else {
      std::printf("cpu: %s, %s, %d threads, %s\n", p.name.c_str(), device::isa_name(p.isa),
                  p.threads, memory.c_str());
    }
  }
  if (!no_cuda.empty()) std::printf("cuda: %s\n", no_cuda.c_str());
  if (!has_cuda()) return 0;
  if (cublaslt.empty()) {
    std::printf(
        "cuBLASLt: %s; our own kernels do all products, which is slower from some hundred rows "
        "on\n",
        device::cublaslt_missing().c_str());
  } else {
    std::printf("cuBLASLt: %s\n", cublaslt.c_str());
  }
  return 0;
}

}  // namespace

void add_version(Program& program) {
  auto json = std::make_shared<bool>(false);
  Command command = program.command("version", "version, commit, back ends, devices found");
  command.flag("--json", json.get(), "as JSON");
  command.run([json] { return run(*json); });
}

}  // namespace millrace::cli
