// CUDA's keywords and built-in variables for a compiler that is not nvcc.
#pragma once

#include "emulator/thread.h"

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))

// All threads of a block run on one thread of the CPU, and that runs one block at a time.
#define __shared__ static thread_local

#define threadIdx (::fastconv::emulator::current_thread().index)
#define blockIdx (::fastconv::emulator::current_block().block_index)
#define blockDim (::fastconv::emulator::current_block().block_dim)
#define gridDim (::fastconv::emulator::current_block().grid_dim)

constexpr int warpSize = 32;
