// The host's side of kernels/max_pool_large.cuh: windows of many elements, up to the whole image.
#pragma once

#include "kernels/max_pool_large.cuh"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<PoolProblem> max_pool_large_forward;
extern const KernelFamily<PoolProblem> max_pool_large_backward;

using LargePoolKernel = void (*)(LargePoolParameters);

enum class LargePoolGroup { warp, block, channels };

// From max_pool_large_<pass>.cu.
LargePoolKernel large_pool_forward_kernel_of(DataType dtype, LargePoolGroup group);
LargePoolKernel large_pool_backward_kernel_of(DataType dtype, LargePoolGroup group);

}  // namespace fastconv
