// The kernels of one number type, for the files direct_wgrad_<type>.cu.
#pragma once

#include "launch/direct_wgrad.h"

namespace fastconv {

template <typename T, typename Index>
DirectWgradKernel<Index> direct_wgrad_kernel_of(int tile) {
  if (tile == 0) return direct_wgrad_kernel<T, Index, kDirectWgradTiles[0].filters, kDirectWgradTiles[0].columns>;
  return direct_wgrad_kernel<T, Index, kDirectWgradTiles[1].filters, kDirectWgradTiles[1].columns>;
}

}  // namespace fastconv

#define FASTCONV_DIRECT_WGRAD_INSTANCES(T)                                                         \
  template fastconv::DirectWgradKernel<int32_t> fastconv::direct_wgrad_kernel_of<T, int32_t>(int); \
  template fastconv::DirectWgradKernel<int64_t> fastconv::direct_wgrad_kernel_of<T, int64_t>(int);
