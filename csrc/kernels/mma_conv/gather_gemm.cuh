// fprop, dgrad and transposed convolution as a matrix product whose left operand is gathered:
//
//   output[pixel, filter] = sum over (tap, channel) of source[place of pixel at tap, channel] * weights[filter, tap,
//   channel]
//
// dgrad with a stride is several such products in one launch, one for each residue of the output's position modulo the
// stride (a phase): outputs of a phase share their taps, so no product is wasted on zeros between them.
#pragma once

#include "kernels/mma_conv/gather_product.cuh"

namespace fastconv::mma {

__device__ __forceinline__ OutputPixel pixel_of(const GatherParameters& parameters, const GatherTile& tile,
                                                uint32_t index) {
  const uint32_t row = tile.columns->outputs.split(index);
  uint32_t rest = row;
  const uint32_t batch = tile.rows->outputs.split(rest);
  return {static_cast<int>(batch), static_cast<int>(rest), static_cast<int>(index),
          batch < static_cast<uint32_t>(parameters.batch)};
}

__device__ __forceinline__ RowPlace output_row(const GatherParameters& parameters, const GatherTile& tile,
                                               const OutputPixel& pixel) {
  if (!pixel.exists) return {-1, 0, 0};
  const int64_t row = tile.rows->first_output + pixel.row * parameters.rows.output_step;
  const int64_t column = tile.columns->first_output + pixel.column * parameters.columns.output_step;
  const auto offset = [&](const PixelStrides& strides) {
    return pixel.batch * strides.batch + row * strides.row + column * strides.column;
  };
  return {offset(parameters.output_strides), offset(parameters.residual_strides),
          pixel.batch * parameters.partial_rows_batch + row * parameters.partial_rows_row + column};
}

template <class Shape>
constexpr int gather_shared_bytes() {
  constexpr int after = Shape::kStagingBytes + Shape::kRows * static_cast<int>(sizeof(RowPlace));
  constexpr int during = Shape::kStages * Shape::kStageBytes;
  return Shape::kRows * static_cast<int>(sizeof(SourceRow)) + (during > after ? during : after);
}

template <class Shape, bool narrow>
__global__ void __launch_bounds__(Shape::kThreads, 1) gather_gemm(const __grid_constant__ GatherParameters parameters) {
  auto* source_rows = ptx::dynamic_shared_memory<SourceRow>();                       // [kRows]
  auto* pipeline = reinterpret_cast<unsigned char*>(source_rows + Shape::kRows);     // stages, then staging
  auto* output_rows = reinterpret_cast<RowPlace*>(pipeline + Shape::kStagingBytes);  // [kRows], after the main loop

  const GatherTile tile(parameters);
  const GatherShare<Shape> share(parameters, tile);
  if (share.first_column >= parameters.output_channels) return;
  const uint32_t first_row = tile.row_tile * Shape::kRows;

  for (int i = threadIdx.x; i < Shape::kRows; i += Shape::kThreads) {
    source_row(parameters, tile, pixel_of(parameters, tile, first_row + i)).store(source_rows + i);
  }
  __syncthreads();

  Accumulators<Shape> accumulators;
  OperandRange range;
  multiply_gathered<Shape, narrow>(accumulators, range, parameters, tile, share, source_rows, pipeline);

  for (int i = threadIdx.x; i < Shape::kRows; i += Shape::kThreads) {
    output_rows[i] = output_row(parameters, tile, pixel_of(parameters, tile, first_row + i));
  }
  __syncthreads();

  store_gathered<Shape, true>(
      accumulators, range, parameters, parameters.out, tile, share, source_rows, reinterpret_cast<float*>(pipeline),
      output_rows, [&](int tile_column) {
        const int column = share.first_column + tile_column;
        const int channel = tile.group * parameters.output_channels + column;
        const int group_pitch = (parameters.output_channels + Shape::kChunk - 1) / Shape::kChunk * Shape::kChunk;
        return ColumnPlace{channel * parameters.out.column_stride, channel * parameters.out.residual_column_stride,
                           static_cast<int64_t>(tile.group) * group_pitch + column, channel,
                           parameters.output_channels - column};
      });
}

}  // namespace fastconv::mma
