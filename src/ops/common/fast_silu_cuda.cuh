// silu for outputs that a thread computes many of at once. For .cu files.
#pragma once

namespace millrace::ops {

/// Without branches: with calls, one after the other, a tile of 128 x 224 took 7 us to write. Off
/// by a few units of the last place of a float.
__device__ inline float fast_silu(float x) {
  return __fdividef(x, 1.0F + __expf(-x));
}

}  // namespace millrace::ops
