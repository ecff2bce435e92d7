// The host's side of kernels/pointwise_conv: pointwise_fprop, pointwise_dgrad and pointwise_wgrad, for sm_80 and later.
#pragma once

#include <vector>

#include "kernels/pointwise_conv.cuh"
#include "launch/mma_tiles.h"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<ConvProblem> pointwise_fprop;
extern const KernelFamily<ConvProblem> pointwise_dgrad;
extern const KernelFamily<ConvProblem> pointwise_wgrad;

namespace mma {

// Rows are filters (or, for dgrad, channels), columns pixels (or, for wgrad, channels).
constexpr Tile kPointwiseTiles[] = {{128, 128, 32, 4, 64, 64}, {64, 128, 64, 3, 32, 64}, {64, 64, 64, 4, 32, 32}};
constexpr Tile kNarrowPointwiseTiles[] = {{64, 64, 64, 3, 32, 32}};

template <class Element>
const KernelSet<PointwiseParameters>& pointwise_kernels(PointwisePass pass);

template <class Element, PointwisePass pass, const Tile* tiles, bool narrow, size_t... i>
std::vector<Kernel<PointwiseParameters>> compile_pointwise(std::index_sequence<i...>) {
  return {[] {
    using Shape = TileShape<Element, Precision::native, tiles[i].rows, tiles[i].columns, tiles[i].depth,
                            tiles[i].stages, tiles[i].warp_rows, tiles[i].warp_columns>;
    return Kernel<PointwiseParameters>{tiles[i], pointwise_shared_bytes<Shape>(), pointwise_gemm<Shape, pass, narrow>,
                                       Shape::kThreads};
  }()...};
}

template <class Element, PointwisePass pass>
const KernelSet<PointwiseParameters>& compiled_pointwise_kernels() {
  static const KernelSet<PointwiseParameters> kernels{
      compile_pointwise<Element, pass, kPointwiseTiles, false>(std::make_index_sequence<std::size(kPointwiseTiles)>()),
      compile_pointwise<Element, pass, kNarrowPointwiseTiles, true>(std::make_index_sequence<1>())};
  return kernels;
}

}  // namespace mma
}  // namespace fastconv
