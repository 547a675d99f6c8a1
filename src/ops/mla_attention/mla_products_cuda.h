// The products with kv_b, head by head, on either side of attention to latents
// (mla_attention_absorbed_cuda). Host code.
#pragma once

#include "device/device.h"

namespace millrace::ops::absorbed {

struct Go;

/// Queries as a token is cached: K_h^T qn, rounded to 16 bits, and qr. q: [T, H*(Dn+R)]. Behind
/// this kernel's own wait for its predecessor all that stood before it has ended; its successor
/// does not start earlier.
void absorb_queries(const device::Queue& queue, const Go& go, const void* q, const void* kv_b);

/// The pieces' partial results join, in order of position; the mean of latents is rounded to 16
/// bits, and V_h times that is written to out [T, H*Dv].
void expand_values(const device::Queue& queue, const Go& go, const void* kv_b, void* out);

}  // namespace millrace::ops::absorbed
