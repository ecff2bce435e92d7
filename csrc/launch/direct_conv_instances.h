// The kernels of one number type, for the files direct_conv_<type>.cu.
#pragma once

#include "launch/direct_conv.h"

namespace fastconv {

template <typename T, typename Index, int kTile>
DirectConvKernel<Index> direct_conv_kernel_of(bool is_mapped) {
  constexpr DirectConvTile kTileOf = kDirectConvTiles[kTile];
  if constexpr (kTileOf.is_mapped) {
    if (is_mapped) return direct_conv_kernel<T, Index, kTileOf.filters, kTileOf.pixels, true>;
  }
  return direct_conv_kernel<T, Index, kTileOf.filters, kTileOf.pixels, false>;
}

template <typename T, typename Index>
DirectConvKernel<Index> direct_conv_kernel_of(int tile, bool is_mapped) {
  switch (tile) {
    case 0:
      return direct_conv_kernel_of<T, Index, 0>(is_mapped);
    case 1:
      return direct_conv_kernel_of<T, Index, 1>(is_mapped);
    default:
      return direct_conv_kernel_of<T, Index, 2>(is_mapped);
  }
}

}  // namespace fastconv

#define FASTCONV_DIRECT_CONV_INSTANCES(T)                                                              \
  template fastconv::DirectConvKernel<int32_t> fastconv::direct_conv_kernel_of<T, int32_t>(int, bool); \
  template fastconv::DirectConvKernel<int64_t> fastconv::direct_conv_kernel_of<T, int64_t>(int, bool);
