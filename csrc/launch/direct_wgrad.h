// The host's side of kernels/direct_wgrad.cuh.
#pragma once

#include "kernels/direct_wgrad.cuh"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<ConvProblem> direct_wgrad;

// Weights that a thread computes: `columns` places (r, s, c) of `filters` filters.
struct DirectWgradTile {
  const char* name;
  int filters, columns;
  double efficiency;  // for the cost model: multiply-adds per instruction of the loop over pixels, as disassembled
};

constexpr DirectWgradTile kDirectWgradTiles[] = {{"f4c8", 4, 8, 0.11}, {"f1c9", 1, 9, 0.06}};

template <typename Index>
using DirectWgradKernel = void (*)(DirectWgradParameters<Index>);

// The kernel of an entry of kDirectWgradTiles, for padding of zeros or mapped, from the file of its type.
template <typename T, typename Index>
DirectWgradKernel<Index> direct_wgrad_kernel_of(int tile, bool is_mapped);

}  // namespace fastconv
