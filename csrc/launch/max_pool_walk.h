// The host's side of kernels/max_pool_walk.cuh: overlapping windows where the channel is innermost.
#pragma once

#include "kernels/max_pool_walk.cuh"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<PoolProblem> max_pool_walk_forward;

using ChannelWalkKernel = void (*)(ChannelWalkParameters);

// From max_pool_walk_forward.cu. window and stride: 2 and 1, 3 and 1, 5 and 1, 3 and 2.
ChannelWalkKernel channel_walk_kernel_of(DataType dtype, int window, int stride);

}  // namespace fastconv
