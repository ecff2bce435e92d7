// The host's side of kernels/max_pool_bands*.cuh: any window over dense NCHW planes.
#pragma once

#include "kernels/max_pool_bands_backward.cuh"
#include "kernels/max_pool_bands_blocks.cuh"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<PoolProblem> max_pool_bands_forward;
extern const KernelFamily<PoolProblem> max_pool_bands_backward;

using BandPoolKernel = void (*)(BandPoolParameters);

// Whether a thread keeps the winners of rows in registers.
inline bool has_band_walk(const PoolProblem& problem) {
  const int window = problem.kernel[0], stride = problem.stride[0];
  const bool is_square = problem.kernel[1] == window && problem.stride[1] == stride;
  return is_square && problem.dilation == std::array<int, 2>{1, 1} && problem.dtype != DataType::float64 &&
         (stride == 1 ? window == 2 || window == 3 || window == 5 : stride == 2 && window == 3);
}

// Whether a thread has four neighbouring windows, whose rows' winners are in shared memory.
inline bool has_band_blocks(const PoolProblem& problem) {
  const std::array<int, 2> one{1, 1};
  const bool is_large = problem.kernel[0] >= kPoolBlock && problem.kernel[1] >= kPoolBlock;
  return !has_band_walk(problem) && is_large && problem.stride == one && problem.dilation == one;
}

// Neighbouring windows of a thread that walks.
inline int band_walk_columns(const PoolProblem& problem) {
  return problem.stride[0] == 1 && size_of(problem.dtype) == 2 ? 2 : 1;
}

// From max_pool_bands_<pass>.cu.
BandPoolKernel band_pool_forward_kernel_of(const PoolProblem& problem);
BandPoolKernel band_pool_backward_kernel_of(const PoolProblem& problem);

}  // namespace fastconv
