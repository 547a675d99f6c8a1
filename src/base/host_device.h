// Marks functions that run on the host and on GPUs.
#pragma once

#ifdef __CUDACC__
#define MILLRACE_HD __host__ __device__
#else
#define MILLRACE_HD
#endif
