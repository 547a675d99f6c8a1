// What the vector tactics of mla_attention keep on their stacks.
#pragma once

#include <cstdint>

namespace millrace::ops {

inline constexpr int64_t kMlaTile = 64;        // keys
inline constexpr int64_t kMlaMaxCached = 640;  // C + R
inline constexpr int64_t kMlaMaxHead = 256;    // Dn + R, Dv

}  // namespace millrace::ops
