// Compiles the wgrad kernel for the tiles of one element type. Each including source is one type: they are compiled
// side by side.
#pragma once

#include "kernels/mma_conv/wgrad_gemm.cuh"
#include "launch/mma_tiles.h"

namespace fastconv::mma {

static_assert(sizeof(WgradParameters) <= 4096, "kernel parameters have 4 KiB");

template <class Element, Precision precision, const Tile* tiles, bool narrow, size_t... i>
std::vector<Kernel<WgradParameters>> compile_wgrad(std::index_sequence<i...>) {
  return {[] {
    using Shape = TileShape<Element, precision, tiles[i].rows, tiles[i].columns, tiles[i].depth, tiles[i].stages,
                            tiles[i].warp_rows, tiles[i].warp_columns>;
    return Kernel<WgradParameters>{tiles[i], wgrad_shared_bytes<Shape>(), wgrad_gemm<Shape, narrow>, Shape::kThreads};
  }()...};
}

template <class Element, Precision precision, const auto& tiles, const auto& narrow_tiles>
const KernelSet<WgradParameters>& compiled_wgrad_kernels() {
  static const KernelSet<WgradParameters> kernels{
      compile_wgrad<Element, precision, tiles, false>(std::make_index_sequence<std::size(tiles)>()),
      compile_wgrad<Element, precision, narrow_tiles, true>(std::make_index_sequence<std::size(narrow_tiles)>())};
  return kernels;
}

}  // namespace fastconv::mma
