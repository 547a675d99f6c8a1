// Measured times of tactics, kept in a text file between builds: one line each, tab-separated,
//   device  problem  tactic  microseconds
// The device names the hardware, its instruction set, the number of threads, the way of timing and
// the software, so one file can serve many machines and versions.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "device/device.h"

namespace millrace::compiler {

class TimingCache {
 public:
  /// Reads `path` when it is there; empty: in memory only. Lines that cannot be read are skipped
  /// and counted in a warning: a cache is only ever a saving of time. `software`: whose kernels
  /// are timed.
  TimingCache(std::string path, const device::Properties& device, std::string_view software);

  std::optional<double> find(const std::string& problem, const std::string& tactic) const;
  void add(const std::string& problem, const std::string& tactic, double microseconds);
  /// Writes the file when something was added, keeping what other devices and programs wrote
  /// meanwhile. Never throws: a cache that cannot be written is a warning.
  void save();

 private:
  using Times = std::map<std::string, double>;  // by whole line but the time
  static Times read(const std::string& path);
  std::string key(const std::string& problem, const std::string& tactic) const;

  std::string path_, device_;
  Times times_;
  bool changed_ = false;
};

}  // namespace millrace::compiler
