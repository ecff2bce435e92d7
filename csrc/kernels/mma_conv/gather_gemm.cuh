// fprop, dgrad and transposed convolution as a matrix product whose left operand is gathered:
//
//   output[pixel, filter] = sum over (tap, channel) of source[place of pixel at tap, channel] * weights[filter, tap,
//   channel]
//
// dgrad with a stride is several such products in one launch, one for each residue of the output's position modulo the
// stride (a phase): outputs of a phase share their taps, so no product is wasted on zeros between them.
#pragma once

#include "kernels/mma_conv/gather_loaders.cuh"
#include "kernels/mma_conv/pipeline.cuh"

namespace fastconv::mma {

// Which tile a block computes.
struct GatherTile {
  uint32_t split, group, column_tile, row_tile;  // row_tile: within its phase
  const AxisPhase* rows;
  const AxisPhase* columns;

  // Blocks run in this order: a raster (a few tiles of columns beside each other, so that their weights stay in cache)
  // of all row tiles, the longest phases first; then the next raster, group, split.
  __device__ __forceinline__ explicit GatherTile(const GatherParameters& parameters) {
    uint32_t rest = blockIdx.x;
    split = parameters.tiles_of_split.split(rest);
    group = parameters.tiles_of_raster.split(rest);
    const uint32_t tile = parameters.raster_width.split(rest);
    uint32_t raster = group;
    group = parameters.rasters.split(raster);
    column_tile = raster * parameters.raster_width.divisor() + rest;
    int first = 0, last = parameters.phase_count - 1;
    while (first < last) {
      const int middle = (first + last + 1) >> 1;
      if (parameters.tile_begin[middle] <= tile) {
        first = middle;
      } else {
        last = middle - 1;
      }
    }
    row_tile = tile - parameters.tile_begin[first];
    rows = &parameters.rows.phases[parameters.phase_row[first]];
    columns = &parameters.columns.phases[parameters.phase_column[first]];
  }
};

struct OutputPixel {
  int batch, row, column;  // row and column within the phase
  bool exists;
};

__device__ __forceinline__ OutputPixel pixel_of(const GatherParameters& parameters, const GatherTile& tile,
                                                uint32_t index) {
  const uint32_t row = tile.columns->outputs.split(index);
  uint32_t rest = row;
  const uint32_t batch = tile.rows->outputs.split(rest);
  return {static_cast<int>(batch), static_cast<int>(rest), static_cast<int>(index),
          batch < static_cast<uint32_t>(parameters.batch)};
}

__device__ __forceinline__ uint32_t valid_taps(const Axis& axis, const AxisPhase& phase, int output) {
  uint32_t valid = 0;
  int source = phase.origin + output * axis.source_step;
  for (int tap = 0; tap < phase.tap_count; ++tap, source += axis.tap_step) {
    valid |= static_cast<uint32_t>(static_cast<uint32_t>(source) < static_cast<uint32_t>(axis.source_size)) << tap;
  }
  return valid;
}

__device__ __forceinline__ SourceRow source_row(const GatherParameters& parameters, const GatherTile& tile,
                                                const OutputPixel& pixel) {
  if (!pixel.exists) return {0, 0, 0};
  const int64_t row = tile.rows->origin + pixel.row * parameters.rows.source_step;
  const int64_t column = tile.columns->origin + pixel.column * parameters.columns.source_step;
  const PixelStrides& strides = parameters.source_strides;
  return {pixel.batch * strides.batch + row * strides.row + column * strides.column,
          valid_taps(parameters.rows, *tile.rows, pixel.row),
          valid_taps(parameters.columns, *tile.columns, pixel.column)};
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

// One output in float32 arithmetic. source, weights: of the group and of the output's filter.
template <class Shape>
__device__ float exact_gather(const GatherParameters& parameters, const float* source, const float* weights,
                              const SourceRow& row, const FastDivider<uint32_t>& taps_across, int begin, int end) {
  TapCursor cursor(begin, 1, parameters.channel_pitch, taps_across);
  float sum = 0;
  for (int k = begin; k < end; ++k, cursor.advance()) {
    if (cursor.channel >= parameters.source_channels) continue;
    if (!((row.valid_rows >> cursor.row) & (row.valid_columns >> cursor.column) & 1)) continue;
    const int64_t distance = cursor.row * parameters.rows.tap_step * parameters.source_strides.row +
                             cursor.column * parameters.columns.tap_step * parameters.source_strides.column;
    sum = fmaf(source[row.offset + distance + cursor.channel], weights[k], sum);
  }
  return sum;
}

template <class Shape>
constexpr int gather_shared_bytes() {
  constexpr int after = Shape::kStagingBytes + Shape::kRows * static_cast<int>(sizeof(RowPlace));
  constexpr int during = Shape::kStages * Shape::kStageBytes;
  return Shape::kRows * static_cast<int>(sizeof(SourceRow)) + (during > after ? during : after);
}

template <class Shape, bool narrow>
__global__ void __launch_bounds__(Shape::kThreads, 1) gather_gemm(const __grid_constant__ GatherParameters parameters) {
  using Element = typename Shape::Element;
  auto* source_rows = ptx::dynamic_shared_memory<SourceRow>();                       // [kRows]
  auto* pipeline = reinterpret_cast<unsigned char*>(source_rows + Shape::kRows);     // stages, then staging
  auto* output_rows = reinterpret_cast<RowPlace*>(pipeline + Shape::kStagingBytes);  // [kRows], after the main loop

  const GatherTile tile(parameters);
  const int first_column = tile.column_tile * Shape::kColumns;
  if (first_column >= parameters.output_channels) return;
  const uint32_t first_row = tile.row_tile * Shape::kRows;

  // This split's share of the slices.
  const int pitch = tile.rows->tap_count * tile.columns->tap_count * parameters.channel_pitch.divisor();
  const uint32_t all_slices = (pitch + Shape::kDepth - 1) / Shape::kDepth;
  const int begin_slice = parameters.splits.divide(all_slices * tile.split);
  const int slices = parameters.splits.divide(all_slices * (tile.split + 1)) - begin_slice;
  const int begin = begin_slice * Shape::kDepth;

  for (int i = threadIdx.x; i < Shape::kRows; i += Shape::kThreads) {
    source_rows[i] = source_row(parameters, tile, pixel_of(parameters, tile, first_row + i));
  }
  __syncthreads();

  const Element* weights =
      static_cast<const Element*>(parameters.weights) +
      int64_t{parameters.all_output_channels} * parameters.channel_pitch.divisor() *
          (tile.rows->taps_before * parameters.total_taps_across + tile.rows->tap_count * tile.columns->taps_before) +
      (int64_t{tile.group} * parameters.output_channels + first_column) * pitch;
  SourceLoader<Shape, narrow> source_loader(parameters, source_rows, tile.group, begin, tile.columns->taps);
  WeightLoader<Shape> weight_loader(weights, parameters.output_channels - first_column, pitch, begin);

  Accumulators<Shape> accumulators;
  uint32_t smallest = kNothingTiny;
  const WarpPlace<Shape> warp;
  run_pipeline<Shape>(
      accumulators, pipeline, slices, smallest,
      [&](unsigned char* stage, int, int) {
        source_loader.load(stage);
        weight_loader.load(stage + Shape::kLeftBytes);
      },
      [&](Fragments<Shape>& fragments, const unsigned char* stage, int step) {
        load_rowwise<Shape>(fragments, stage, stage + Shape::kLeftBytes, warp.row, warp.column, step);
      },
      [](const Fragments<Shape>&) {});

  for (int i = threadIdx.x; i < Shape::kRows; i += Shape::kThreads) {
    output_rows[i] = output_row(parameters, tile, pixel_of(parameters, tile, first_row + i));
  }
  __syncthreads();

  const auto column_at = [&](int tile_column) {
    const int column = first_column + tile_column, channel = tile.group * parameters.output_channels + column;
    const int group_pitch = (parameters.output_channels + Shape::kChunk - 1) / Shape::kChunk * Shape::kChunk;
    return ColumnPlace{channel * parameters.out.column_stride, channel * parameters.out.residual_column_stride,
                       static_cast<int64_t>(tile.group) * group_pitch + column, channel,
                       parameters.output_channels - column};
  };
  auto* staging = reinterpret_cast<float*>(pipeline);
  if constexpr (Shape::kPrecision == Precision::split_tf32) {
    const auto* source =
        static_cast<const float*>(parameters.source) + int64_t{tile.group} * parameters.source_group_step;
    store_tile<Shape>(accumulators, staging, output_rows, parameters.out, tile.split, column_at, Suspicion(smallest),
                      [&](int row, int column) {
                        return exact_gather<Shape>(parameters, source, weights + int64_t{column} * pitch,
                                                   source_rows[row], tile.columns->taps, begin,
                                                   min(pitch, begin + slices * Shape::kDepth));
                      });
  } else {
    store_tile<Shape>(
        accumulators, staging, output_rows, parameters.out, tile.split, column_at, [](float) { return false; },
        [](int, int) { return 0.0f; });
  }
}

}  // namespace fastconv::mma
