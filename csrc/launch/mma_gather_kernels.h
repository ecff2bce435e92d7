// Compiles the gathered matrix product for the tiles of one element type. Each including source is one type: they are
// compiled side by side.
#pragma once

#include "kernels/mma_conv/gather_gemm.cuh"
#include "launch/mma_tiles.h"

namespace fastconv::mma {

static_assert(sizeof(GatherParameters) <= 4096, "kernel parameters have 4 KiB");

template <class Element, Precision precision, const Tile* tiles, bool narrow, size_t... i>
std::vector<Kernel<GatherParameters>> compile_gather(std::index_sequence<i...>) {
  return {[] {
    using Shape = TileShape<Element, precision, tiles[i].rows, tiles[i].columns, tiles[i].depth, tiles[i].stages,
                            tiles[i].warp_rows, tiles[i].warp_columns>;
    return Kernel<GatherParameters>{tiles[i], gather_shared_bytes<Shape>(), gather_gemm<Shape, narrow>,
                                    Shape::kThreads};
  }()...};
}

template <class Element, Precision precision, const auto& tiles, const auto& narrow_tiles>
const KernelSet<GatherParameters>& compiled_gather_kernels() {
  static const KernelSet<GatherParameters> kernels{
      compile_gather<Element, precision, tiles, false>(std::make_index_sequence<std::size(tiles)>()),
      compile_gather<Element, precision, narrow_tiles, true>(std::make_index_sequence<std::size(narrow_tiles)>())};
  return kernels;
}

}  // namespace fastconv::mma
