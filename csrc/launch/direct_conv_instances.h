// The kernels of one number type, for the files direct_conv_<type>.cu.
#pragma once

#include "launch/direct_conv.h"

namespace fastconv {

template <typename T, typename Index>
DirectConvKernel<Index> direct_conv_kernel_of(int tile) {
  switch (tile) {
    case 0:
      return direct_conv_kernel<T, Index, kDirectConvTiles[0].filters, kDirectConvTiles[0].pixels>;
    case 1:
      return direct_conv_kernel<T, Index, kDirectConvTiles[1].filters, kDirectConvTiles[1].pixels>;
    default:
      return direct_conv_kernel<T, Index, kDirectConvTiles[2].filters, kDirectConvTiles[2].pixels>;
  }
}

}  // namespace fastconv

#define FASTCONV_DIRECT_CONV_INSTANCES(T)                                                        \
  template fastconv::DirectConvKernel<int32_t> fastconv::direct_conv_kernel_of<T, int32_t>(int); \
  template fastconv::DirectConvKernel<int64_t> fastconv::direct_conv_kernel_of<T, int64_t>(int);
