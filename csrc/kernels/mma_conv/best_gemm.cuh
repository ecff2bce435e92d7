// Convolution, bias, activation and the largest element of each map, which is never in memory.
//
// The rows of a tile are neighbouring outputs of one image. The finished tile goes to shared memory, where each column
// is reduced to its largest element and that element's place; the parts of an image are merged in their order by a
// second kernel.
#pragma once

#include "kernels/mma_conv/staged_tile.cuh"

namespace fastconv::mma {

__device__ __forceinline__ Best load_best(const Best* place) {
  const auto bits = ptx::load_vector<2>(reinterpret_cast<const uint32_t*>(place));
  return {__uint_as_float(bits[0]), static_cast<int32_t>(bits[1])};
}

__device__ __forceinline__ void store_best(Best* place, const Best& best) {
  ptx::store_vector(reinterpret_cast<uint32_t*>(place),
                    ptx::Vector<uint32_t, 2>{__float_as_uint(best.value), static_cast<uint32_t>(best.place)});
}

// Threads that share a column, each with its own rows: they make so many parts of a tile.
template <class Shape>
constexpr int kBestParts = Shape::kThreads > Shape::kColumns ? Shape::kThreads / Shape::kColumns : 1;

template <class Shape, bool narrow>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    best_gemm(const __grid_constant__ BestGatherParameters parameters) {
  using Element = typename Shape::Element;
  constexpr int kParts = kBestParts<Shape>, kRowsOfPart = Shape::kRows / kParts;
  const GatherTile tile(parameters.gather);
  const GatherShare<Shape> share(parameters.gather, tile);
  if (share.first_column >= parameters.gather.output_channels) return;
  uint32_t tile_of_image = tile.row_tile;
  const int batch = parameters.tiles_of_image.split(tile_of_image);
  const int first_pixel = tile_of_image * Shape::kRows;
  const auto pixel_at = [&](int i) {
    uint32_t column = first_pixel + i;
    const int row = tile.columns->outputs.split(column);
    return OutputPixel{batch, row, static_cast<int>(column), first_pixel + i < parameters.map_pixels};
  };
  const Element* elements = stage_tile<Shape, narrow>(parameters.gather, tile, share, pixel_at, [](int) { return 0; });

#pragma unroll 1
  for (int i = threadIdx.x; i < kParts * Shape::kColumns; i += Shape::kThreads) {
    const int column = i % Shape::kColumns, part = i / Shape::kColumns, first_row = part * kRowsOfPart;
    if (share.first_column + column >= parameters.gather.output_channels) continue;
    const int rows = min(kRowsOfPart, parameters.map_pixels - first_pixel - first_row);
    Best best{-INFINITY, first_pixel + first_row};
#pragma unroll 4
    for (int row = first_row; row < first_row + rows; ++row) {
      const float value = Numeric<Element>::load(elements[row * StagedTile<Shape>::kPitch + column]);
      if (wins_over(value, best.value)) best = {value, first_pixel + row};
    }
    const int64_t place = int64_t{batch} * parameters.parts + tile_of_image * kParts + part;
    const int channel = tile.group * parameters.gather.output_channels + share.first_column + column;
    store_best(parameters.parts_of_maps + place * parameters.gather.all_output_channels + channel, best);
  }
}

constexpr int kMergeColumns = 32, kMergeShares = 8;

// A block merges the parts of kMergeColumns channels of an image: kMergeShares threads take neighbouring parts each, in
// order, and the first of them the results, in order.
template <class Element>
__global__ void __launch_bounds__(kMergeColumns* kMergeShares)
    merge_best(const __grid_constant__ MergeParameters parameters) {
  __shared__ Best shares[kMergeShares][kMergeColumns];
  uint32_t column_block = blockIdx.x;
  const int64_t batch = parameters.column_blocks.split(column_block);
  const int lane = threadIdx.x % kMergeColumns, share = threadIdx.x / kMergeColumns;
  const int channel = column_block * kMergeColumns + lane;
  const int each = (parameters.parts + kMergeShares - 1) / kMergeShares;
  const int begin = share * each, end = min(parameters.parts, begin + each);
  Best best{-INFINITY, 0};
  if (channel < parameters.channels) {
    const Best* parts = parameters.parts_of_maps + batch * parameters.parts * parameters.channels + channel;
#pragma unroll 4
    for (int part = begin; part < end; ++part) {
      const Best found = load_best(parts + int64_t{part} * parameters.channels);
      if (wins_over(found.value, best.value)) best = found;
    }
    store_best(&shares[share][lane], best);
  }
  __syncthreads();
  if (share != 0 || channel >= parameters.channels) return;
#pragma unroll
  for (int other = 1; other < kMergeShares; ++other) {
    const Best found = load_best(&shares[other][lane]);
    if (wins_over(found.value, best.value)) best = found;
  }
  const int64_t place = batch * parameters.channels + channel;
  static_cast<Element*>(parameters.output)[place] = Numeric<Element>::store(best.value);
  parameters.indices[place] = best.place;
}

}  // namespace fastconv::mma
