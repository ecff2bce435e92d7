// The kernels of one number type, for the files direct_wgrad_<type>.cu.
#pragma once

#include "launch/direct_wgrad.h"

namespace fastconv {

template <typename T, typename Index, int kTile>
DirectWgradKernel<Index> direct_wgrad_kernel_of(bool is_mapped) {
  constexpr DirectWgradTile kTileOf = kDirectWgradTiles[kTile];
  if (is_mapped) return direct_wgrad_kernel<T, Index, kTileOf.filters, kTileOf.columns, true>;
  return direct_wgrad_kernel<T, Index, kTileOf.filters, kTileOf.columns, false>;
}

template <typename T, typename Index>
DirectWgradKernel<Index> direct_wgrad_kernel_of(int tile, bool is_mapped) {
  return tile == 0 ? direct_wgrad_kernel_of<T, Index, 0>(is_mapped) : direct_wgrad_kernel_of<T, Index, 1>(is_mapped);
}

}  // namespace fastconv

#define FASTCONV_DIRECT_WGRAD_INSTANCES(T)                                                               \
  template fastconv::DirectWgradKernel<int32_t> fastconv::direct_wgrad_kernel_of<T, int32_t>(int, bool); \
  template fastconv::DirectWgradKernel<int64_t> fastconv::direct_wgrad_kernel_of<T, int64_t>(int, bool);
