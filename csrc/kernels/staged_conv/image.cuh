// Tiles, and where what they see of the input lies: in the source, and in its image in shared memory.
#pragma once

#include "kernels/staged_conv/parameters.h"
#include "ptx/device.h"

namespace fastconv::staged {

struct Tile {
  int batch, row, column;  // of its first output pixel

  __device__ __forceinline__ Tile(const Parameters& p, uint32_t index) {
    uint32_t rest = p.tiles_across.divide(index);
    column = static_cast<int>(index - rest * p.tiles_across.divisor()) << p.tile_width_log2;
    batch = static_cast<int>(p.tiles_down.split(rest));
    row = static_cast<int>(rest) * (kTileRows >> p.tile_width_log2);
  }
};

// The source's place of image place `i`, for a tile that begins at output `first`.
__device__ __forceinline__ int source_place(const Axis& axis, int first, uint32_t i) {
  const int period = static_cast<int>(axis.period.divide(i));
  return axis.origin + (first + period) * axis.step + static_cast<int>(i) -
         period * static_cast<int>(axis.period.divisor());
}

// Where column x of the image begins in its row, in bytes.
__device__ __forceinline__ int column_place(const StagedTensor& p, uint32_t x) {
  return static_cast<int>(x) * p.column_pitch + static_cast<int>(p.columns.period.divide(x)) * p.column_gap;
}

}  // namespace fastconv::staged
