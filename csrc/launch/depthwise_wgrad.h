// The host's side of kernels/depthwise/*_wgrad.cuh.
#pragma once

#include "kernels/depthwise/channels_last_wgrad.cuh"
#include "kernels/depthwise/planes_wgrad.cuh"
#include "launch/depthwise.h"

namespace fastconv::depthwise {

using PlanesWgradKernel = void (*)(PlanesWgradParameters);
using ChannelsLastWgradKernel = void (*)(ChannelsLastWgradParameters);

// Filters that planes_wgrad_kernel is unrolled for; the last but one is a piece of a larger filter, the last takes any.
struct WgradFilterSizes {
  int rows, columns, stride;
};
constexpr WgradFilterSizes kWgradFilters[] = {{3, 3, 1}, {5, 5, 1}, {7, 7, 1}, {3, 3, 2},
                                              {5, 5, 2}, {8, 2, 1}, {0, 0, 0}};
constexpr int kWgradFilterCount = sizeof(kWgradFilters) / sizeof(kWgradFilters[0]);

template <typename T>
PlanesWgradKernel planes_wgrad_kernel_of(int filter);  // of kWgradFilters

// taps: 3, 5, 7, or 0 for any filter, stride and dilation.
template <typename T>
ChannelsLastWgradKernel channels_last_wgrad_kernel_of(int taps);

// Partial sums of dw and of the bias gradient in the workspace.
struct Parts {
  int splits = 1;
  int64_t bias_offset = 0, bytes = 0;  // no bytes where there is one split

  static Parts of(const ConvProblem& problem, int64_t splits);
  float* sums(void* workspace) const { return splits > 1 ? static_cast<float*>(workspace) : nullptr; }
  float* bias_sums(void* workspace) const {
    return splits > 1 ? reinterpret_cast<float*>(static_cast<char*>(workspace) + bias_offset) : nullptr;
  }
};

// Adds the parts up. dw: the operand as parts of one split are laid out, densely.
template <typename T>
void add_parts(const ConvProblem& problem, const Parts& parts, const Operand& dw, const LaunchArguments& arguments);

// A way to run wgrad: configurations of one layout.
extern const Way planes_wgrad_way;
extern const Way channels_last_wgrad_ways[3];

}  // namespace fastconv::depthwise
