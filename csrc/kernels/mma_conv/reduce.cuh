// Adds the parts of a split sum in their order, so that results repeat bit by bit, and finishes the outputs.
#pragma once

#include "kernels/mma_conv/finish.cuh"

namespace fastconv::mma {

constexpr int kReduceThreads = 256;

template <class Element>
__device__ __forceinline__ void reduce_bias(const ReduceParameters& parameters, int64_t index) {
  if (index >= parameters.bias_count) return;
  float sum = 0;
  for (int split = 0; split < parameters.splits; ++split) {
    sum += parameters.partial_bias[split * parameters.bias_count + index];
  }
  static_cast<Element*>(parameters.bias_gradient)[index] = Numeric<Element>::store(sum);
}

// sums += the parts of a chunk, split after split. partial: the first.
template <int kChunk>
__device__ __forceinline__ void add_splits(float (&sums)[kChunk], const ReduceParameters& parameters,
                                           const float* partial) {
  for (int split = 0; split < parameters.splits; ++split, partial += parameters.out.partial_split_stride) {
#pragma unroll
    for (int i = 0; i < kChunk; i += 4) {
      const auto four = ptx::load_vector<4>(partial + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i + j] += four[j];
    }
  }
}

// The same for every place of the padded x at which an element of x stands, its own first. partial: the chunk in the
// first place of the image.
template <int kChunk>
__device__ __forceinline__ void add_images(float (&sums)[kChunk], const ReduceParameters& parameters,
                                           const float* partial, int row, int column) {
  const PaddedAxis<int>&rows = parameters.padded_rows, &columns = parameters.padded_columns;
  const int64_t width = columns.low + columns.size + columns.high;
  for (int i = 0; i < rows.images; ++i) {
    const int padded_row = padded_image(rows, row, i);
    if (padded_row < 0) continue;
    for (int j = 0; j < columns.images; ++j) {
      const int padded_column = padded_image(columns, column, j);
      if (padded_column < 0) continue;
      add_splits(sums, parameters, partial + (padded_row * width + padded_column) * parameters.out.partial_pitch);
    }
  }
}

// A thread adds one chunk of columns; threads past the last chunk add the bias gradient's elements.
template <class Element, bool is_folded>
__device__ __forceinline__ void reduce_chunk(const ReduceParameters& parameters) {
  constexpr int kChunk = 16 / sizeof(Element);
  const int64_t item = int64_t{blockIdx.x} * kReduceThreads + threadIdx.x;
  if (item >= parameters.items) {
    if (parameters.partial_bias != nullptr) reduce_bias<Element>(parameters, item - parameters.items);
    return;
  }
  uint64_t chunk = item;
  const uint64_t row = parameters.chunks.split(chunk);

  const OutputParameters& out = parameters.out;
  uint64_t pixel_row = row;
  uint64_t column = pixel_row;
  pixel_row = parameters.width.split(column);
  uint64_t image_row = pixel_row;
  const uint64_t batch = parameters.height.split(image_row);
  const auto offset = [&](const PixelStrides& strides) {
    return static_cast<int64_t>(batch) * strides.batch + static_cast<int64_t>(image_row) * strides.row +
           static_cast<int64_t>(column) * strides.column;
  };
  float sums[kChunk] = {};
  const float* partial = out.partial + chunk * kChunk;
  if constexpr (is_folded) {
    const auto padded = [](const PaddedAxis<int>& axis) { return int64_t{axis.low} + axis.size + axis.high; };
    const int64_t image = padded(parameters.padded_rows) * padded(parameters.padded_columns) * out.partial_pitch;
    add_images(sums, parameters, partial + batch * image, static_cast<int>(image_row), static_cast<int>(column));
  } else {
    add_splits(sums, parameters, partial + row * out.partial_pitch);
  }

  const RowPlace row_place{offset(parameters.output_strides), offset(parameters.residual_strides), 0};

  uint32_t channel = static_cast<uint32_t>(chunk) * kChunk;
  const uint32_t outer = parameters.channel_pitch.split(channel);
  ColumnPlace place{0, 0, 0, 0, parameters.channels - static_cast<int>(channel)};
  if (parameters.columns_are_taps) {
    uint32_t tap_column = outer;
    const uint32_t tap_row = parameters.taps_across.split(tap_column);
    place.output =
        tap_row * parameters.tap_row_stride + tap_column * parameters.tap_column_stride + channel * out.column_stride;
  } else {
    place.bias = outer * parameters.channels + channel;
    place.output = place.bias * out.column_stride;
    place.residual = place.bias * out.residual_column_stride;
  }
  finish_chunk<Element>(sums, out, row_place, place);
}

template <class Element>
__global__ void __launch_bounds__(kReduceThreads) reduce_splits(const __grid_constant__ ReduceParameters parameters) {
  reduce_chunk<Element, false>(parameters);
}

template <class Element>
__global__ void __launch_bounds__(kReduceThreads, 2) fold_splits(const __grid_constant__ ReduceParameters parameters) {
  reduce_chunk<Element, true>(parameters);
}

}  // namespace fastconv::mma
