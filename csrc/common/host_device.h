// Functions that run on both sides, and no CUDA header for it.
#pragma once

#if defined(__CUDACC__)
#define FASTCONV_HOST_DEVICE __host__ __device__
#else
#define FASTCONV_HOST_DEVICE
#endif
