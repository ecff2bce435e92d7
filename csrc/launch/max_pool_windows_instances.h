// The kernels of one number type; included by max_pool_windows_<type>.cu.
#pragma once

#include "launch/max_pool_windows.h"

namespace fastconv {

template <typename T>
PlanePoolKernel plane_pool_kernel_of(PoolPass pass, int window) {
  if (pass == PoolPass::forward) {
    return window == 2 ? max_pool_planes_forward_kernel<2, T> : max_pool_planes_forward_kernel<3, T>;
  }
  return window == 2 ? max_pool_planes_backward_kernel<2, T> : max_pool_planes_backward_kernel<3, T>;
}

template <typename T>
ChannelPoolKernel channel_pool_kernel_of(PoolPass pass, int window) {
  if (pass == PoolPass::forward) {
    return window == 2 ? max_pool_channels_forward_kernel<2, T> : max_pool_channels_forward_kernel<3, T>;
  }
  return window == 2 ? max_pool_channels_backward_kernel<2, T> : max_pool_channels_backward_kernel<3, T>;
}

}  // namespace fastconv
