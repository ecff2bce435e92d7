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
constexpr Tile kPointwiseTiles16[] = {{128, 128, 32, 4, 64, 64}, {64, 128, 64, 3, 32, 64}, {64, 64, 64, 4, 32, 32}};
constexpr Tile kNarrowPointwiseTiles16[] = {{64, 64, 64, 3, 32, 32}};
constexpr Tile kPointwiseTilesTf32[] = {{128, 128, 16, 4, 64, 64}, {64, 128, 32, 3, 32, 64}, {64, 64, 32, 4, 32, 32}};
// Split numbers take three times the registers a product: warps of 64x64 would spill.
constexpr Tile kPointwiseTilesSplit[] = {{128, 128, 32, 3, 64, 32}, {64, 128, 32, 3, 32, 64}, {64, 64, 32, 4, 32, 32}};
constexpr Tile kNarrowPointwiseTiles32[] = {{64, 64, 32, 3, 32, 32}};

template <class Element, Precision precision>
const KernelSet<PointwiseParameters>& pointwise_kernels(PointwisePass pass);

template <class Element, Precision precision, PointwisePass pass, const Tile* tiles, bool narrow, size_t... i>
std::vector<Kernel<PointwiseParameters>> compile_pointwise(std::index_sequence<i...>) {
  return {[] {
    using Shape = TileShape<Element, precision, tiles[i].rows, tiles[i].columns, tiles[i].depth, tiles[i].stages,
                            tiles[i].warp_rows, tiles[i].warp_columns>;
    return Kernel<PointwiseParameters>{tiles[i], pointwise_shared_bytes<Shape>(), pointwise_gemm<Shape, pass, narrow>,
                                       Shape::kThreads};
  }()...};
}

template <class Element, Precision precision, PointwisePass pass, const auto& tiles, const auto& narrow_tiles>
const KernelSet<PointwiseParameters>& compiled_pointwise_kernels() {
  static const KernelSet<PointwiseParameters> kernels{
      compile_pointwise<Element, precision, pass, tiles, false>(std::make_index_sequence<std::size(tiles)>()),
      compile_pointwise<Element, precision, pass, narrow_tiles, true>(
          std::make_index_sequence<std::size(narrow_tiles)>())};
  return kernels;
}

// Of all passes.
template <class Element, Precision precision, const auto& tiles, const auto& narrow_tiles>
const KernelSet<PointwiseParameters>& compiled_pointwise_kernels_of(PointwisePass pass) {
  const auto get = [](auto of) -> const KernelSet<PointwiseParameters>& {
    return compiled_pointwise_kernels<Element, precision, decltype(of)::value, tiles, narrow_tiles>();
  };
  if (pass == PointwisePass::fprop) return get(std::integral_constant<PointwisePass, PointwisePass::fprop>());
  if (pass == PointwisePass::dgrad) return get(std::integral_constant<PointwisePass, PointwisePass::dgrad>());
  return get(std::integral_constant<PointwisePass, PointwisePass::wgrad>());
}

}  // namespace mma
}  // namespace fastconv
