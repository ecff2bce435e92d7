// Compiles the fused kernels for the tiles of one element type. Each including source is one type: they are compiled
// side by side.
#pragma once

#include "kernels/mma_conv/best_gemm.cuh"
#include "kernels/mma_conv/pool_gemm.cuh"
#include "launch/mma_fused_tiles.h"

namespace fastconv::mma {

static_assert(sizeof(PoolGatherParameters) <= 4096 && sizeof(BestGatherParameters) <= 4096,
              "kernel parameters have 4 KiB");

template <class Element, Precision precision, const auto& tiles, bool narrow, size_t... i>
void add_fused_kernels(std::vector<Kernel<PoolGatherParameters>>& pool, std::vector<Kernel<BestGatherParameters>>& best,
                       std::index_sequence<i...>) {
  const auto add = [&](auto shape, const Tile& tile) {
    using Shape = decltype(shape);
    pool.push_back({tile, staged_shared_bytes<Shape>(), pool_gemm<Shape, narrow>, Shape::kThreads});
    best.push_back({tile, staged_shared_bytes<Shape>(), best_gemm<Shape, narrow>, Shape::kThreads});
  };
  (add(TileShape<Element, precision, tiles[i].rows, tiles[i].columns, tiles[i].depth, tiles[i].stages,
                 tiles[i].warp_rows, tiles[i].warp_columns>{},
       tiles[i]),
   ...);
}

template <class Element, Precision precision, const auto& tiles, const auto& narrow_tiles>
const FusedKernels& compiled_fused_kernels() {
  static const FusedKernels kernels = [] {
    FusedKernels found;
    add_fused_kernels<Element, precision, tiles, false>(found.pool.tiles, found.best.tiles,
                                                        std::make_index_sequence<std::size(tiles)>());
    add_fused_kernels<Element, precision, narrow_tiles, true>(found.pool.narrow, found.best.narrow,
                                                              std::make_index_sequence<std::size(narrow_tiles)>());
    return found;
  }();
  return kernels;
}

}  // namespace fastconv::mma
