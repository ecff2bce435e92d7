// What the launchers of the pooling kernels for one window have in common: 2x2 with stride 2 and no padding, and 3x3
// with stride 2 and padding 1, of float32, float16 and bfloat16, with offsets of one byte.
#pragma once

#include "kernels/max_pool_channels.cuh"
#include "kernels/max_pool_planes.cuh"
#include "launch/max_pool_moving.h"
#include "launch/tiling.h"

namespace fastconv {

using PlanePoolKernel = void (*)(PlanePoolParameters);
using ChannelPoolKernel = void (*)(ChannelPoolParameters);

// From max_pool_windows_<type>.cu. window: 2 or 3. has_pairs: W is even, and no window begins behind it.
template <typename T>
PlanePoolKernel plane_pool_kernel_of(PoolPass pass, int window, bool has_pairs);
template <typename T>
ChannelPoolKernel channel_pool_kernel_of(PoolPass pass, int window);

// Why the window, type or sizes are none of theirs; empty where they are. Nothing of the layout.
std::string reason_against_windows(const PoolProblem& problem);

extern const KernelFamily<PoolProblem> max_pool_planes_forward;
extern const KernelFamily<PoolProblem> max_pool_planes_backward;
extern const KernelFamily<PoolProblem> max_pool_channels_forward;
extern const KernelFamily<PoolProblem> max_pool_channels_backward;

}  // namespace fastconv
