// millrace version: what this program is and what it finds.
#include <cstdio>

#include <nlohmann/json.hpp>

#include "base/str.h"
#include "base/version.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "device/device.h"

namespace millrace::cli {
namespace {

int run(bool json) {
  const auto cpu = device::make_cpu_device();
  const device::Properties& p = cpu->properties();
  if (json) {
    const nlohmann::ordered_json line = {{"version", version()},
                                         {"commit", commit()},
                                         {"back_ends", {"cpu"}},
                                         {"devices",
                                          {{{"kind", "cpu"},
                                            {"name", p.name},
                                            {"isa", device::isa_name(p.isa)},
                                            {"threads", p.threads},
                                            {"memory_bytes", p.memory_bytes}}}}};
    std::puts(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return 0;
  }
  std::printf("millrace %s (%s)\nback ends: cpu\ncpu: %s, %s, %d threads, %s\n", version(),
              commit(), p.name.c_str(), device::isa_name(p.isa), p.threads,
              format_bytes(p.memory_bytes).c_str());
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
