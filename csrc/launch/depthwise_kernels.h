// The depthwise kernels of each number type. Each type has a file depthwise_<type>.cu, so that they compile side by
// side.
#pragma once

#include "kernels/depthwise/band.cuh"
#include "kernels/depthwise/channels_last.cuh"
#include "kernels/depthwise/planes.cuh"
#include "launch/depthwise.h"

namespace fastconv::depthwise {

using PlanesKernel = void (*)(PlanesParameters);
using BandKernel = void (*)(BandParameters);
using ChannelsLastKernel = void (*)(ChannelsLastParameters);

// Filters that planes_kernel is unrolled for; the last two take any.
struct PlaneFilterSizes {
  int rows, columns, stride;
  bool transposed;
};
constexpr PlaneFilterSizes kPlaneFilters[] = {{3, 3, 1, false}, {5, 5, 1, false}, {7, 7, 1, false}, {9, 9, 1, false},
                                              {3, 3, 2, false}, {5, 5, 2, false}, {3, 3, 2, true},  {5, 5, 2, true},
                                              {0, 0, 0, false}, {0, 0, 0, true}};
constexpr int kPlaneFilterCount = sizeof(kPlaneFilters) / sizeof(kPlaneFilters[0]);
constexpr int kAnyPlaneFilter = kPlaneFilterCount - 2, kAnyTransposedPlaneFilter = kPlaneFilterCount - 1;

template <typename T>
PlanesKernel planes_kernel_of(int filter);  // of kPlaneFilters

// taps: 3, 5, 7, or 0 for any filter, stride and dilation.
template <typename T>
ChannelsLastKernel channels_last_kernel_of(int taps);

// band: band_of(S), 3 to kLargestBand; 16-bit types.
template <typename T>
BandKernel band_kernel_of(int band);

// Fills in where the tensors are and launches; p is parameters, or inside of them.
template <typename T, class Parameters>
void launch_planes(const ConvProblem& problem, const Description& description, Parameters& parameters,
                   PlanesParameters& p, void (*kernel)(Parameters), const LaunchArguments& arguments) {
  auto [x, w, y, bias, residual] = arguments.pointers;
  const Roles roles = roles_of(problem);
  const bool is_fprop = problem.pass == ConvPass::fprop;
  p.source = is_fprop ? x : y;
  p.source_end = static_cast<const char*>(p.source) + bytes_of(*roles.source, sizeof(T));
  p.weights = w;
  p.bias = problem.has_bias ? bias : nullptr;
  p.residual = problem.has_residual ? residual : nullptr;
  p.residual_end = static_cast<const char*>(p.residual) + bytes_of(problem.residual, sizeof(T));
  p.output = is_fprop ? y : x;
  const LaunchShape shape{is_fprop ? "depthwise_fprop" : "depthwise_dgrad", description.blocks, description.threads,
                          description.shared_bytes, kPlaneThreads};
  launch_kernel(shape, kernel, parameters,
                {{"x", x, bytes_of(problem.x, sizeof(T)), !is_fprop},
                 {"w", w, bytes_of(problem.w, sizeof(T))},
                 {"y", y, bytes_of(problem.y, sizeof(T)), is_fprop},
                 {"bias", p.bias, roles.output->sizes[1] * static_cast<int64_t>(sizeof(T))},
                 {"residual", p.residual, bytes_of(problem.residual, sizeof(T))}},
                arguments.stream);
}

}  // namespace fastconv::depthwise
