// What the tactic lists of CUDA ops share. Host code, also where there is no CUDA.
#pragma once

#include "ops/op.h"

/// Entries of a tactic list that exist where the CUDA back end is built:
/// `MILLRACE_ON_CUDA({...}, {...}, )`.
#if defined(MILLRACE_CUDA)
#define MILLRACE_ON_CUDA(...) __VA_ARGS__
#else
#define MILLRACE_ON_CUDA(...)
#endif
