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

// A thread adds one chunk of columns; threads past the last chunk add the bias gradient's elements.
template <class Element>
__global__ void __launch_bounds__(kReduceThreads) reduce_splits(const __grid_constant__ ReduceParameters parameters) {
  constexpr int kChunk = 16 / sizeof(Element);
  const int64_t item = int64_t{blockIdx.x} * kReduceThreads + threadIdx.x;
  if (item >= parameters.items) {
    if (parameters.partial_bias != nullptr) reduce_bias<Element>(parameters, item - parameters.items);
    return;
  }
  uint64_t chunk = item;
  const uint64_t row = parameters.chunks.split(chunk);

  const OutputParameters& out = parameters.out;
  const float* partial = out.partial + row * out.partial_pitch + chunk * kChunk;
  float sums[kChunk] = {};
  for (int split = 0; split < parameters.splits; ++split, partial += out.partial_split_stride) {
#pragma unroll
    for (int i = 0; i < kChunk; i += 4) {
      const auto four = ptx::load_vector<4>(partial + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i + j] += four[j];
    }
  }

  uint64_t pixel_row = row;
  uint64_t column = pixel_row;
  pixel_row = parameters.width.split(column);
  uint64_t image_row = pixel_row;
  const uint64_t batch = parameters.height.split(image_row);
  const auto offset = [&](const PixelStrides& strides) {
    return static_cast<int64_t>(batch) * strides.batch + static_cast<int64_t>(image_row) * strides.row +
           static_cast<int64_t>(column) * strides.column;
  };
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

}  // namespace fastconv::mma
