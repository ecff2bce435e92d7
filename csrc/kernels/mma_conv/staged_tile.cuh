// A finished tile of a convolution in shared memory, for epilogues that look at many outputs at once: bias added,
// activated, rounded to the output's type, so that comparing its elements is comparing what an unfused convolution
// would have written.
#pragma once

#include "kernels/mma_conv/fused_parameters.h"
#include "kernels/mma_conv/gather_product.cuh"

namespace fastconv::mma {

// A row of the staged tile, in place of a RowPlace. Its chunk of columns from c on lies at c ^ turn.
struct alignas(8) StagedRow {
  static constexpr int64_t residual = 0, partial = 0;  // there is neither
  int output;                                          // of its first element; -1 where there is no such row
  int turn;                                            // a multiple of a chunk, below 8 chunks

  __device__ __forceinline__ int64_t output_at(const ColumnPlace& column) const {
    return output + (static_cast<int>(column.output) ^ turn);
  }
  __device__ __forceinline__ void store(StagedRow* place) const {
    ptx::store_vector(reinterpret_cast<int32_t*>(place), ptx::Vector<int32_t, 2>{output, turn});
  }
};

// Where things lie once the main loop is over: store_tile's staging, the places of the rows, the tile.
template <class Shape>
struct StagedTile {
  using Element = typename Shape::Element;
  static constexpr int kChunksAcross = Shape::kColumns / Shape::kChunk;
  // Warps that write rows of 64 bytes write two rows at a time: those must not meet in the same banks.
  static constexpr int kPitch =
      Shape::kColumns + (Shape::kWarpColumns * sizeof(Element) < 128 ? 64 / static_cast<int>(sizeof(Element)) : 0);
  static constexpr int kRowsAt = Shape::kStagingBytes;
  static constexpr int kElementsAt = kRowsAt + Shape::kRows * static_cast<int>(sizeof(StagedRow));
  static constexpr int kBytes = kElementsAt + Shape::kRows * kPitch * static_cast<int>(sizeof(Element));
  static_assert(kRowsAt % 16 == 0 && kElementsAt % 16 == 0, "chunks are aligned");
  static_assert(kChunksAcross % 8 == 0, "a row is what its turn permutes");
};

template <class Shape>
constexpr int staged_shared_bytes() {
  constexpr int during = Shape::kStages * Shape::kStageBytes;
  return Shape::kRows * static_cast<int>(sizeof(SourceRow)) +
         (during > StagedTile<Shape>::kBytes ? during : StagedTile<Shape>::kBytes);
}

// Computes the tile. pixel_at(row of the tile) -> OutputPixel, in the first and only phase; turn_at(row of the tile) ->
// 0..7, by which the row's chunks are exchanged. Returns [kRows][kPitch]; rows and columns that do not exist are not
// written. Every thread of the block comes here, and sees all of it afterwards.
template <class Shape, bool narrow, class PixelAt, class TurnAt>
__device__ __forceinline__ const typename Shape::Element* stage_tile(const GatherParameters& parameters,
                                                                     const GatherTile& tile,
                                                                     const GatherShare<Shape>& share,
                                                                     const PixelAt& pixel_at, const TurnAt& turn_at) {
  using Staged = StagedTile<Shape>;
  auto* source_rows = ptx::dynamic_shared_memory<SourceRow>();                    // [kRows]
  auto* pipeline = reinterpret_cast<unsigned char*>(source_rows + Shape::kRows);  // stages, then what StagedTile says
  for (int i = threadIdx.x; i < Shape::kRows; i += Shape::kThreads) {
    source_row(parameters, tile, pixel_at(i)).store(source_rows + i);
  }
  __syncthreads();

  Accumulators<Shape> accumulators;
  OperandRange range;
  multiply_gathered<Shape, narrow>(accumulators, range, parameters, tile, share, source_rows, pipeline);

  auto* rows = reinterpret_cast<StagedRow*>(pipeline + Staged::kRowsAt);
  auto* elements = reinterpret_cast<typename Shape::Element*>(pipeline + Staged::kElementsAt);
  for (int i = threadIdx.x; i < Shape::kRows; i += Shape::kThreads) {
    StagedRow{pixel_at(i).exists ? i * Staged::kPitch : -1, turn_at(i) * Shape::kChunk}.store(rows + i);
  }
  __syncthreads();

  OutputParameters out{};
  out.output = elements;
  out.bias = parameters.out.bias;
  out.column_stride = 1;
  out.activation = parameters.out.activation;
  out.vector_access = true;
  store_gathered<Shape, false>(accumulators, range, parameters, out, tile, share, source_rows,
                               reinterpret_cast<float*>(pipeline), rows, [&](int tile_column) {
                                 const int column = share.first_column + tile_column;
                                 return ColumnPlace{tile_column, 0, 0,
                                                    static_cast<int>(tile.group) * parameters.output_channels + column,
                                                    parameters.output_channels - column};
                               });
  __syncthreads();
  return elements;
}

// The first of equal values wins, NaN over all, and of several NaN the last: PyTorch's rule for max pooling.
__device__ __forceinline__ bool wins_over(float value, float best) {
  return value > best || value != value;
}

}  // namespace fastconv::mma
