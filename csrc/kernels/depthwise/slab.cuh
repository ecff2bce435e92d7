// A tile of a channels-last tensor in shared memory, as all channels-last depthwise kernels stage it: some rows and
// columns of one image, and a slab of 1, 2, 4 or 8 chunks of 16 bytes of its channels. Places outside of the image are
// zeros, so that nobody asks for bounds again.
//
// Rows and columns are kept apart by their place modulo the stride, so that what neighbouring outputs read at one tap
// lies side by side whatever the stride is. A thread works on an odd number of neighbouring columns: then eight
// threads, in any mixture of chunks and strips of columns, read eight different groups of four banks.
#pragma once

#include "kernels/depthwise/chunk.cuh"
#include "kernels/depthwise/geometry.h"
#include "ptx/cp_async.h"
#include "ptx/device.h"

namespace fastconv::depthwise {

constexpr int kSlabThreads = 128;

// Columns of a strip: the outputs, or gradients, that a thread works on at a time.
constexpr int kStrip = 7;

struct SlabTile {
  int rows, columns;              // staged
  int row_phases, column_phases;  // kept apart
  int row_phase_pitch;            // rows of a phase
  int column_phase_pitch;         // columns of a phase
  int pitch;                      // columns from row to row
  FastDivider<uint32_t> columns_divider, row_phases_divider, column_phases_divider;
};

// Where a row or column of the tile is.
FASTCONV_HOST_DEVICE inline int slab_row(const SlabTile& tile, int row) {
  if (tile.row_phases == 1) return row;
  uint32_t phase = row;
  const int place = tile.row_phases_divider.split(phase);
  return phase * tile.row_phase_pitch + place;
}
FASTCONV_HOST_DEVICE inline int slab_column(const SlabTile& tile, int column) {
  if (tile.column_phases == 1) return column;
  uint32_t phase = column;
  const int place = tile.column_phases_divider.split(phase);
  return phase * tile.column_phase_pitch + place;
}

// The image that a tile is cut from.
template <typename T>
struct SlabSource {
  const T* image;       // [H, W, C] of one n
  int64_t row, column;  // strides
  int height, width, channels;
  bool vector;  // whether all chunks are whole and aligned
};

// Starts the copies of the tile whose first place is (row, column) and first channel `channel`; chunk c of a place lies
// at (place << slab_log2) + c. All threads of the block come here.
template <typename T>
__device__ __forceinline__ void stage_slab(T* staged, const SlabTile& tile, const SlabSource<T>& source, int row,
                                           int column, int channel, int slab_log2) {
  constexpr int kElements = kChunk<T>;
  const int count = (tile.rows * tile.columns) << slab_log2;
#pragma unroll 1
  for (int i = threadIdx.x; i < count; i += kSlabThreads) {
    const int chunk = i & ((1 << slab_log2) - 1);
    uint32_t x = static_cast<uint32_t>(i) >> slab_log2;
    const int y = tile.columns_divider.split(x);
    T* to = staged + (((slab_row(tile, y) * tile.pitch + slab_column(tile, x)) << slab_log2) + chunk) * kElements;
    const int h = row + y, w = column + static_cast<int>(x), first = channel + chunk * kElements;
    const bool inside = static_cast<unsigned>(h) < static_cast<unsigned>(source.height) &&
                        static_cast<unsigned>(w) < static_cast<unsigned>(source.width) && first < source.channels;
    const T* from = inside ? source.image + h * source.row + w * source.column + first : source.image;
    if (source.vector) {
      ptx::copy_async<kChunkBytes>(to, from, inside ? kChunkBytes : 0);
    } else {
      ptx::Vector<T, kElements> values;
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        values[e] = inside && first + e < source.channels ? from[e] : Numeric<T>::store(0.0f);
      }
      ptx::store_vector(to, values);
    }
  }
  ptx::commit_async_copies();
}

}  // namespace fastconv::depthwise
