#include "compiler/tactics/timing_cache.h"

#include <charconv>
#include <fstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/log.h"

namespace millrace::compiler {
namespace {

/// Of the way in which the profiler times: times of another one say nothing beside these.
/// 2: small kernels stand between launches of GPUs. 3: no small launch is judged by the host's
/// time. 4: ids name all experts.
constexpr int kMethod = 4;

}  // namespace

TimingCache::TimingCache(std::string path, const device::Properties& device,
                         std::string_view software)
    : path_(std::move(path)) {
  const std::string hardware =
      device.kind == device::Kind::kCpu
          ? str(device.name, "/", device::isa_name(device.isa), "/", device.threads)
          : str(device.name, "/sm", device.sm);
  device_ = str(hardware, "/method", kMethod, "/", software);
  if (!path_.empty()) times_ = read(path_);
}

TimingCache::Times TimingCache::read(const std::string& path) {
  Times times;
  std::ifstream in(path);
  std::string line;
  int skipped = 0;
  while (std::getline(in, line)) {
    const size_t tab = line.rfind('\t');
    double us = 0;
    const char* end = line.data() + line.size();
    const auto parsed = tab == std::string::npos
                            ? std::from_chars_result{nullptr, std::errc::invalid_argument}
                            : std::from_chars(line.data() + tab + 1, end, us);
    if (parsed.ec == std::errc() && parsed.ptr == end && us > 0) {
      times[line.substr(0, tab)] = us;
    } else {
      ++skipped;
    }
  }
  if (skipped > 0) log::warning("timing cache ", path, ": ", skipped, " lines skipped");
  return times;
}

std::string TimingCache::key(const std::string& problem, const std::string& tactic) const {
  return str(device_, "\t", problem, "\t", tactic);
}

std::optional<double> TimingCache::find(const std::string& problem,
                                        const std::string& tactic) const {
  const auto it = times_.find(key(problem, tactic));
  if (it == times_.end()) return std::nullopt;
  return it->second;
}

void TimingCache::add(const std::string& problem, const std::string& tactic, double microseconds) {
  times_[key(problem, tactic)] = microseconds;
  changed_ = true;
}

void TimingCache::save() {
  if (path_.empty() || !changed_) return;
  try {
    Times merged = read(path_);
    for (const auto& [line, us] : times_)
      merged[line] = us;
    AtomicFile file(path_);
    for (const auto& [line, us] : merged)
      file.write(str(line, "\t", us, "\n"));
    file.commit();
    changed_ = false;
  } catch (const Error& error) {
    log::warning("the timing cache was not written: ", error.what());
  }
}

}  // namespace millrace::compiler
