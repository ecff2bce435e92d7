// The host's side of kernels/depthwise/*_wgrad.cuh.
#pragma once

#include <string>

#include "kernels/depthwise/band_wgrad.cuh"
#include "kernels/depthwise/channels_last_wgrad.cuh"
#include "kernels/depthwise/planes_wgrad.cuh"
#include "launch/depthwise.h"
#include "launch/depthwise_tiling.h"

namespace fastconv::depthwise {

using PlanesWgradKernel = void (*)(PlanesWgradParameters);
using BandWgradKernel = void (*)(BandWgradParameters);
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

// Tiles of 16 and of 8 taps that a block of band_wgrad_kernel has: the first for filters that it takes whole.
struct BandWgradTiles {
  int rows, columns;
};
constexpr BandWgradTiles kBandWgradTiles[] = {{1, 2}, {2, 4}};

// tiles: of kBandWgradTiles; 16-bit types.
template <typename T>
BandWgradKernel band_wgrad_kernel_of(int tiles);

// taps: 3, 5, 7, or 0 for any filter, stride and dilation.
template <typename T>
ChannelsLastWgradKernel channels_last_wgrad_kernel_of(int taps);

// Partial sums of dw and of the bias gradient in the workspace.
struct Parts {
  int splits = 1;
  int64_t bias_offset = 0, bytes = 0;  // no bytes where there is one split

  static Parts of(const ConvProblem& problem, int64_t splits);
  // As many as the workspace may hold; one needs none.
  static int64_t most_splits(const ConvProblem& problem);
  float* sums(void* workspace) const { return splits > 1 ? static_cast<float*>(workspace) : nullptr; }
  float* bias_sums(void* workspace) const {
    return splits > 1 ? reinterpret_cast<float*>(static_cast<char*>(workspace) + bias_offset) : nullptr;
  }
};

// Adds the parts up. dw: the operand as parts of one split are laid out, densely.
template <typename T>
void add_parts(const ConvProblem& problem, const Parts& parts, const Operand& dw, const LaunchArguments& arguments);

// Fills in where the tensors are, launches, and adds the parts; p is parameters, or inside of them. dw: as add_parts
// has it.
template <typename T, class Parameters, class Places>
void launch_wgrad(const ConvProblem& problem, const Parts& parts, const Description& description,
                  Parameters& parameters, Places& p, void (*kernel)(Parameters), int launch_bound, const Operand& dw,
                  const LaunchArguments& arguments) {
  auto [x, w, y, bias, residual] = arguments.pointers;
  p.x = x;
  p.dy = y;
  p.dw = w;
  p.db = problem.has_bias ? bias : nullptr;
  p.parts = parts.sums(arguments.workspace);
  p.bias_parts = parts.bias_sums(arguments.workspace);
  const LaunchShape shape{"depthwise_wgrad", description.blocks, description.threads, description.shared_bytes,
                          launch_bound};
  launch_kernel(shape, kernel, parameters,
                {{"x", x, bytes_of(problem.x, sizeof(T))},
                 {"w", w, bytes_of(problem.w, sizeof(T)), true},
                 {"y", y, bytes_of(problem.y, sizeof(T))},
                 {"bias", p.db, problem.w.sizes[0] * static_cast<int64_t>(sizeof(T)), true},
                 {"workspace", p.parts, parts.bytes, true}},
                arguments.stream);
  add_parts<T>(problem, parts, dw, arguments);
}

// The pieces of one filter's images that warps take in turn, W innermost; kernels/depthwise/wgrad_pieces.cuh.
struct WgradPieces {
  PlaneExtent extent;  // planes: images of a piece
  int64_t x_pitch, dy_pitch, dy_place, warp_bytes;
  int64_t pieces, pieces_of_split, splits;

  // As many splits as fill the device where each filter has so many blocks.
  static WgradPieces of(const ConvProblem& problem, int64_t blocks_of_filter);
  PlanesWgradParameters parameters(const ConvProblem& problem, int64_t tap_groups, int64_t groups_of_row,
                                   int64_t bytes_of_warp) const;
  double bytes(const ConvProblem& problem) const;  // of x and dy, read once, halos included
  // All but what is predicted.
  Description description(int64_t tap_groups, int64_t blocks, int64_t bytes_of_warp, const Parts& parts) const;
};

// Why no kernel takes pieces of these tensors; empty where they may.
std::string why_not_pieces(const ConvProblem& problem);
std::string why_not_blocks(const ConvProblem& problem, const WgradPieces& pieces, int64_t warp_bytes, int64_t blocks);

// launch_wgrad for kernels of pieces.
template <typename T, class Parameters>
void launch_pieces(const ConvProblem& problem, const Parts& parts, const Description& description,
                   Parameters& parameters, PlanesWgradParameters& p, void (*kernel)(Parameters),
                   const LaunchArguments& arguments) {
  p.x_end = static_cast<const char*>(arguments.pointers[0]) + bytes_of(problem.x, sizeof(T));
  p.dy_end = static_cast<const char*>(arguments.pointers[2]) + bytes_of(problem.y, sizeof(T));
  // Parts [splits, K, 1, R, S]: the filter is outermost.
  Operand dw;
  dw.sizes = {problem.w.sizes[0], 1, problem.w.sizes[2], problem.w.sizes[3]};
  dw.strides = {problem.w.strides[0], 1, problem.w.strides[2], problem.w.strides[3]};
  launch_wgrad<T>(problem, parts, description, parameters, p, kernel, kPlaneThreads, dw, arguments);
}

// A way to run wgrad: configurations of one layout.
extern const Way planes_wgrad_way;
extern const Way band_wgrad_way;  // on tensor cores
extern const Way channels_last_wgrad_ways[3];

}  // namespace fastconv::depthwise
