// The matrix product of fprop and dgrad, whatever pixels the rows of a tile are and whatever becomes of the sums.
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

__device__ __forceinline__ uint32_t valid_taps(const Axis& axis, const AxisPhase& phase, int output) {
  uint32_t valid = 0;
  int source = phase.origin + output * axis.source_step;
  for (int tap = 0; tap < phase.tap_count; ++tap, source += axis.tap_step) {
    valid |= static_cast<uint32_t>(static_cast<uint32_t>(source) < static_cast<uint32_t>(axis.source_size)) << tap;
  }
  return valid;
}

__device__ __forceinline__ SourceRow source_row(const GatherParameters& parameters, const GatherTile& tile,
                                                OutputPixel pixel) {
  const bool is_mapped = parameters.border.is_mapped;
  if (!pixel.exists && !is_mapped) return {0, 0, 0};
  if (!pixel.exists) pixel = {0, 0, 0, true};  // every tap of a row is read then: of a pixel that there is
  const int64_t row = tile.rows->origin + pixel.row * parameters.rows.source_step;
  const int64_t column = tile.columns->origin + pixel.column * parameters.columns.source_step;
  const PixelStrides& strides = parameters.source_strides;
  const int64_t offset = pixel.batch * strides.batch + row * strides.row + column * strides.column +
                         int64_t{tile.group} * parameters.source_group_step;
  if (is_mapped) return SourceRow::bordered(offset, static_cast<int>(row), static_cast<int>(column));
  return {offset, valid_taps(parameters.rows, *tile.rows, pixel.row),
          valid_taps(parameters.columns, *tile.columns, pixel.column)};
}

// One output in float32 arithmetic. weights: of the output's filter.
template <class Element>
__device__ float exact_gather(const GatherParameters& parameters, const Element* weights, const SourceRow& row,
                              const FastDivider<uint32_t>& taps_across, int begin, int end) {
  const Element* source = static_cast<const Element*>(parameters.source) + row.offset;
  TapCursor cursor(begin, 1, parameters.channel_pitch, taps_across);
  float sum = 0;
  for (int k = begin; k < end; ++k, cursor.advance()) {
    if (cursor.channel >= parameters.source_channels) continue;
    const int tap_row = cursor.row * parameters.rows.tap_step, tap_column = cursor.column * parameters.columns.tap_step;
    int64_t distance = tap_row * parameters.source_strides.row + tap_column * parameters.source_strides.column;
    bool is_source = true;
    if (parameters.border.is_mapped) {
      const BorderWay way =
          border_way(parameters.border, parameters.source_strides, row.row() + tap_row, row.column() + tap_column);
      distance += way.distance;
      is_source = !way.is_constant;
    } else {
      is_source = (row.valid_rows >> cursor.row) & (row.valid_columns >> cursor.column) & 1;
      if (!is_source && parameters.is_transposed) continue;
    }
    const float value = is_source ? Numeric<Element>::load(source[distance + cursor.channel]) : parameters.border.fill;
    sum = fmaf(value, Numeric<Element>::load(weights[k]), sum);
  }
  return sum;
}

// What a block adds up, and its weights.
template <class Shape>
struct GatherShare {
  int first_column;  // of the tile, in its group
  int pitch;         // terms of the whole sum
  int begin, slices;
  const typename Shape::Element* weights;  // of the first column

  __device__ __forceinline__ GatherShare(const GatherParameters& parameters, const GatherTile& tile)
      : first_column(tile.column_tile * Shape::kColumns),
        pitch(tile.rows->tap_count * tile.columns->tap_count * parameters.channel_pitch.divisor()) {
    const uint32_t all_slices = (pitch + Shape::kDepth - 1) / Shape::kDepth;
    const int begin_slice = parameters.splits.divide(all_slices * tile.split);
    slices = parameters.splits.divide(all_slices * (tile.split + 1)) - begin_slice;
    begin = begin_slice * Shape::kDepth;
    weights =
        static_cast<const typename Shape::Element*>(parameters.weights) +
        int64_t{parameters.all_output_channels} * parameters.channel_pitch.divisor() *
            (tile.rows->taps_before * parameters.total_taps_across + tile.rows->tap_count * tile.columns->taps_before) +
        (int64_t{tile.group} * parameters.output_channels + first_column) * pitch;
  }

  __device__ __forceinline__ int end() const { return min(pitch, begin + slices * Shape::kDepth); }
};

// source_rows: [kRows], written and synchronised. pipeline: the stages. Returns as run_pipeline does.
template <class Shape, bool narrow>
__device__ __forceinline__ void multiply_gathered(Accumulators<Shape>& accumulators, OperandRange& range,
                                                  const GatherParameters& parameters, const GatherTile& tile,
                                                  const GatherShare<Shape>& share, const SourceRow* source_rows,
                                                  unsigned char* pipeline) {
  SourceLoader<Shape, narrow> source_loader(parameters, source_rows, share.begin, tile.columns->taps);
  WeightLoader<Shape> weight_loader(share.weights, parameters.output_channels - share.first_column, share.pitch,
                                    share.begin);
  const WarpPlace<Shape> warp;
  run_pipeline<Shape>(
      accumulators, pipeline, share.slices, range,
      [&](unsigned char* stage, int, int) {
        source_loader.load(stage);
        weight_loader.load(stage + Shape::kLeftBytes);
      },
      [&](Fragments<Shape>& fragments, const unsigned char* stage, int step) {
        load_rowwise<Shape>(fragments, stage, stage + Shape::kLeftBytes, warp.row, warp.column, step);
      },
      [](const Fragments<Shape>&) {});
}

// Stores the tile by store_tile. Computed again are sums that split TF32 got wrong and, where may_be_transposed, sums
// of dgrad that are not numbers and lack a tap: its zero may have met an infinite weight.
template <class Shape, bool may_be_transposed, class Row, class ColumnAt>
__device__ __forceinline__ void store_gathered(const Accumulators<Shape>& accumulators, const OperandRange& range,
                                               const GatherParameters& parameters, const OutputParameters& out,
                                               const GatherTile& tile, const GatherShare<Shape>& share,
                                               const SourceRow* source_rows, float* staging, const Row* output_rows,
                                               const ColumnAt& column_at) {
  constexpr bool kSplit = Shape::kPrecision == Precision::split_tf32;
  const auto exact = [&](int row, int column, float sum) {
    const SourceRow& source = source_rows[row];
    const auto lacks = [](uint32_t valid, int taps) { return valid != (1u << taps) - 1; };
    if (!kSplit && !lacks(source.valid_rows, tile.rows->tap_count) &&
        !lacks(source.valid_columns, tile.columns->tap_count)) {
      return sum;
    }
    return exact_gather(parameters, share.weights + int64_t{column} * share.pitch, source, tile.columns->taps,
                        share.begin, share.end());
  };
  if constexpr (kSplit) {
    store_tile<Shape>(accumulators, staging, output_rows, out, tile.split, column_at, Suspicion(range), exact);
  } else if constexpr (may_be_transposed) {
    store_tile<Shape>(
        accumulators, staging, output_rows, out, tile.split, column_at,
        [&](float sum) { return parameters.is_transposed && sum != sum; }, exact);
  } else {
    store_tile<Shape>(
        accumulators, staging, output_rows, out, tile.split, column_at, [](float) { return false; },
        [](int, int, float sum) { return sum; });
  }
}

}  // namespace fastconv::mma
