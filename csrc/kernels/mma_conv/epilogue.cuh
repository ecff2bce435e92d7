// From accumulators to memory. A warp turns 16 rows at a time through its own piece of shared memory, so that a lane
// holds neighbouring columns of a row and stores 16 bytes.
#pragma once

#include "kernels/mma_conv/finish.cuh"
#include "kernels/mma_conv/shape.cuh"

namespace fastconv::mma {

template <class Shape>
struct Accumulators {
  float sums[Shape::kRowTiles][Shape::kColumnTiles][4] = {};
};

// This warp's first row and column in the tile.
template <class Shape>
struct WarpPlace {
  int row, column;

  __device__ __forceinline__ WarpPlace()
      : row(static_cast<int>(threadIdx.x / 32) / Shape::kWarpsAcross * Shape::kWarpRows),
        column(static_cast<int>(threadIdx.x / 32) % Shape::kWarpsAcross * Shape::kWarpColumns) {}
};

// Where a column of a row of the 16 lies in the row's staging memory: of each 8 columns one half or the other is first.
// Lanes read 16 bytes, 8 of them at once. Those are 32 bytes apart where a chunk is 8 columns, and those that go along
// rows always: four lanes have every other 16 bytes of the banks, and the other four must not have the same.
template <int chunk>
__device__ __forceinline__ int staged_column(int row, int column) {
  return column ^ ((chunk == 8 ? row ^ row >> 2 ^ column >> 5 : row >> 2) & 1) << 2;
}

// rows: RowPlace, or what stands for it, of every row of the tile. column_at(column of the tile, a whole chunk) ->
// ColumnPlace. exact(row, column of the tile, sum) -> float, asked for sums that is_suspect(sum): see pipeline.cuh.
// staging: shared memory that nobody uses any more. adds_to_partial: partial sums are there, and these come on top.
// Every warp of the block comes here.
template <class Shape, class Row, class ColumnAt, class IsSuspect, class Exact>
__device__ __forceinline__ void store_tile(const Accumulators<Shape>& accumulators, float* staging, const Row* rows,
                                           const OutputParameters& out, uint32_t split, const ColumnAt& column_at,
                                           const IsSuspect& is_suspect, const Exact& exact,
                                           bool adds_to_partial = false) {
  using Element = typename Shape::Element;
  constexpr int kChunk = Shape::kChunk, kPitch = Shape::kStagingPitch, kChunksAcross = Shape::kWarpColumns / kChunk;
  const WarpPlace<Shape> warp;
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  // Neighbouring lanes go along what is contiguous in memory: columns, or rows where columns are far apart (NCHW).
  const bool along_rows = out.partial == nullptr && out.column_stride != 1;
  staging += threadIdx.x / 32 * 16 * kPitch;
#pragma unroll 1
  for (int m = 0; m < Shape::kRowTiles; ++m) {
    // Registers have no addresses: all tiles are looked at, one is written.
#pragma unroll
    for (int candidate = 0; candidate < Shape::kRowTiles; ++candidate) {
      if (candidate != m) continue;
#pragma unroll
      for (int n = 0; n < Shape::kColumnTiles; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float* sums = accumulators.sums[candidate][n] + 2 * half;
          const int row = g + 8 * half;
          ptx::store_vector(staging + row * kPitch + staged_column<Shape::kChunk>(row, 8 * n + 2 * t),
                            ptx::Vector<float, 2>{sums[0], sums[1]});
        }
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int i = lane; i < 16 * kChunksAcross; i += 32) {
      const int slab_row = along_rows ? i % 16 : i / kChunksAcross, chunk = along_rows ? i / 16 : i % kChunksAcross;
      const int tile_row = warp.row + 16 * m + slab_row, tile_column = warp.column + chunk * kChunk;
      const Row row = rows[tile_row];
      const ColumnPlace column = column_at(tile_column);
      if (row.output < 0 || column.count <= 0) continue;
      float values[kChunk];
      uint32_t suspects = 0;
#pragma unroll
      for (int j = 0; j < kChunk; j += 4) {
        const auto four = ptx::load_vector<4>(staging + slab_row * kPitch +
                                              staged_column<Shape::kChunk>(slab_row, chunk * kChunk + j));
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          values[j + k] = four[k];
          if (j + k < column.count && is_suspect(four[k])) suspects |= 1u << (j + k);
        }
      }
      while (suspects != 0) {
        const int place = __ffs(suspects) - 1;
        suspects &= suspects - 1;
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kChunk; ++j) sum = j == place ? values[j] : sum;
        sum = exact(tile_row, tile_column + place, sum);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) values[j] = j == place ? sum : values[j];
      }
      if (out.partial != nullptr) {
        float* partial =
            out.partial + split * out.partial_split_stride + row.partial * out.partial_pitch + column.partial;
#pragma unroll
        for (int j = 0; j < kChunk; j += 4) {
          ptx::Vector<float, 4> sums{};
          if (adds_to_partial) sums = ptx::load_vector<4>(partial + j);
#pragma unroll
          for (int k = 0; k < 4; ++k) sums[k] = adds_to_partial ? sums[k] + values[j + k] : values[j + k];
          ptx::store_vector(partial + j, sums);
        }
      } else {
        finish_chunk<Element>(values, out, row, column);
      }
    }
    __syncwarp();
  }
}

}  // namespace fastconv::mma
