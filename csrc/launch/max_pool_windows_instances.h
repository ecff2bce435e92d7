// The kernels of one number type; included by max_pool_windows_<type>.cu.
#pragma once

#include "launch/max_pool_windows.h"

namespace fastconv {

template <typename T, bool kPairs>
PlanePoolKernel plane_pool_kernel_in(PoolPass pass, int window) {
  if (pass == PoolPass::forward) {
    return window == 2 ? max_pool_planes_forward_kernel<2, kPairs, T> : max_pool_planes_forward_kernel<3, kPairs, T>;
  }
  return window == 2 ? max_pool_planes_backward_kernel<2, kPairs, T> : max_pool_planes_backward_kernel<3, kPairs, T>;
}

template <typename T>
PlanePoolKernel plane_pool_kernel_of(PoolPass pass, int window, bool has_pairs) {
  return has_pairs ? plane_pool_kernel_in<T, true>(pass, window) : plane_pool_kernel_in<T, false>(pass, window);
}

template <typename T>
ChannelPoolKernel channel_pool_kernel_of(PoolPass pass, int window) {
  if (pass == PoolPass::forward) {
    return window == 2 ? max_pool_channels_forward_kernel<2, T> : max_pool_channels_forward_kernel<3, T>;
  }
  return window == 2 ? max_pool_channels_backward_kernel<2, T> : max_pool_channels_backward_kernel<3, T>;
}

}  // namespace fastconv
