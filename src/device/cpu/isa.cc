#include "device/cpu/isa.h"

#include <array>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/cgroup.h"
#include "base/str.h"

namespace millrace::device {

const char* isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return "scalar";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512bf16";
  }
  return "?";
}

#if defined(__x86_64__)
namespace {

struct CpuidResult {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// All zero for a leaf that the processor does not have.
CpuidResult cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  CpuidResult r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

/// Register state that the operating system saves and restores (XCR0).
uint64_t saved_register_state() {
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

constexpr bool has_bits(uint64_t value, uint64_t bits) {
  return (value & bits) == bits;
}

constexpr uint32_t bit(int n) {
  return uint32_t{1} << n;
}

}  // namespace

CpuIsa detect_isa() {
  // Bit numbers: Intel's Software Developer's Manual, volume 2A, CPUID; volume 1, 13.3 (XCR0).
  const uint32_t leaf1 = cpuid(1).ecx;
  constexpr uint32_t kFma = bit(12), kOsXsave = bit(27), kAvx = bit(28), kF16c = bit(29);
  if (!has_bits(leaf1, kFma | kOsXsave | kAvx | kF16c)) return CpuIsa::kScalar;
  const uint64_t state = saved_register_state();
  constexpr uint64_t kYmmState = 0x6, kZmmState = 0xe6;
  const uint32_t leaf7 = cpuid(7).ebx;
  constexpr uint32_t kAvx2 = bit(5), kBmi2 = bit(8);
  if (!has_bits(state, kYmmState) || !has_bits(leaf7, kAvx2 | kBmi2)) return CpuIsa::kScalar;
  constexpr uint32_t kAvx512FDqBwVl = bit(16) | bit(17) | bit(30) | bit(31);
  if (!has_bits(state, kZmmState) || !has_bits(leaf7, kAvx512FDqBwVl)) return CpuIsa::kAvx2;
  constexpr uint32_t kAvx512Bf16 = bit(5);
  return has_bits(cpuid(7, 1).eax, kAvx512Bf16) ? CpuIsa::kAvx512Bf16 : CpuIsa::kAvx512;
}

std::string cpu_name() {
  if (cpuid(0x80000000).eax < 0x80000004) return "CPU";
  std::array<char, 49> text = {};
  for (uint32_t i = 0; i < 3; ++i) {
    const CpuidResult part = cpuid(0x80000002 + i);
    std::memcpy(text.data() + i * sizeof part, &part, sizeof part);
  }
  std::string name(text.data());
  name.erase(0, name.find_first_not_of(' '));
  name.erase(name.find_last_not_of(' ') + 1);
  return name.empty() ? "CPU" : name;
}

#else

CpuIsa detect_isa() {
  return CpuIsa::kScalar;
}

std::string cpu_name() {
  return "CPU";
}

#endif

CacheSizes cache_sizes() {
  CacheSizes sizes{512 << 10, 32 << 20};
  for (int index = 0;; ++index) {
    const std::string folder = str("/sys/devices/system/cpu/cpu0/cache/index", index, "/");
    const auto level = read_first_line(folder + "level");
    const auto size = read_first_line(folder + "size");  // "32768K"
    if (!level || !size) return sizes;
    const int64_t bytes = std::strtoll(size->c_str(), nullptr, 10) << 10;
    if (bytes <= 0 || *level == "1") continue;
    if (*level == "2") sizes.l2 = bytes;
    sizes.last = bytes;  // levels ascend
  }
}

}  // namespace millrace::device
