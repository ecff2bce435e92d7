// The host's side of kernels/direct_conv/direct_conv.cuh: the families direct_fprop and direct_dgrad.
#pragma once

#include "kernels/direct_conv/direct_conv.cuh"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<ConvProblem> direct_fprop;
extern const KernelFamily<ConvProblem> direct_dgrad;

// Outputs that a thread computes: `filters` output channels of `pixels` pixels.
struct DirectConvTile {
  const char* name;
  int filters, pixels;
  double efficiency;  // for the cost model: multiply-adds per instruction of the loop over channels
  bool is_mapped;     // whether there are instances for padding that is not zeros
};

constexpr DirectConvTile kDirectConvTiles[] = {
    {"k8p4", 8, 4, 0.55, false}, {"k4p2", 4, 2, 0.4, true}, {"k1p8", 1, 8, 0.14, true}};

template <typename Index>
using DirectConvKernel = void (*)(DirectConvParameters<Index>);

// The kernel of an entry of kDirectConvTiles, for padding of zeros or mapped. Each type has a file
// direct_conv_<type>.cu, so that they compile side by side.
template <typename T, typename Index>
DirectConvKernel<Index> direct_conv_kernel_of(int tile, bool is_mapped);

}  // namespace fastconv
