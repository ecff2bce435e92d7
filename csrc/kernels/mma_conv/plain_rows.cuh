// From accumulators to memory in the common case: no residual, relu at most, rows the same distance apart, and every 16
// bytes of a row exist or do not. A lane's column is found once, and from row to row it takes a step.
#pragma once

#include "kernels/mma_conv/epilogue.cuh"
#include "kernels/mma_conv/turned_slab.cuh"
#include "ptx/global_store.h"

namespace fastconv::mma {

template <class Shape>
struct PlainRows {
  using Element = typename Shape::Element;
  using Slab = TurnedSlab<Element, Shape::kWarpColumns>;
  static constexpr int kAcross = Shape::kWarpColumns / Slab::kChunk, kRowsOfTurn = 32 / kAcross;
  static constexpr int kWarpBytes = Slab::kBytesOfRows;  // of shared memory

  // The lane's first row and column of the tile.
  __device__ __forceinline__ static int row() {
    return WarpPlace<Shape>().row + static_cast<int>(threadIdx.x & 31) / kAcross;
  }
  __device__ __forceinline__ static int column() {
    return WarpPlace<Shape>().column + static_cast<int>(threadIdx.x) % kAcross * Slab::kChunk;
  }

  // memory: kWarpBytes of shared memory for each warp. bound: see lower_bound.h. to: of the lane's first output.
  // row_step: elements between rows. rows_left: how many there are from the lane's first on; 0 without its columns.
  __device__ __forceinline__ static void store(const Accumulators<Shape>& accumulators, unsigned char* memory,
                                               float bound, Element* to, int64_t row_step, int rows_left) {
    memory += threadIdx.x / 32 * kWarpBytes;
    const int64_t step = kRowsOfTurn * row_step;
    constexpr int kEights = 2 * Slab::kRowTiles, kTurnsOfEight = 8 / kRowsOfTurn, kTurns = kEights * kTurnsOfEight;
#pragma unroll
    for (int m = 0; m < Shape::kRowTiles; m += Slab::kRowTiles) {
      if (m > 0) __syncwarp();
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
        for (int n = 0; n < Shape::kColumnTiles; ++n) {
          const float* two = accumulators.sums[m + eight / 2][n] + eight % 2 * 2;
          Slab::template put<false>(memory, eight, n, two, bound);
        }
      }
      __syncwarp();
      ptx::Vector<Element, Slab::kChunk> values[kTurns];
#pragma unroll
      for (int i = 0; i < kTurns; ++i) {
        const int lane = threadIdx.x & 31, row = lane / kAcross + i % kTurnsOfEight * kRowsOfTurn;
        values[i] = Slab::along_columns(memory, i / kTurnsOfEight, row, lane % kAcross);
      }
#pragma unroll
      for (int i = 0; i < kTurns; ++i) {
        ptx::store_global_if(rows_left > 16 * m + i * kRowsOfTurn, to, values[i]);
        to += step;
      }
    }
  }
};

}  // namespace fastconv::mma
