// Convolution, bias, activation and max pool in one kernel, the convolution's output never in memory.
//
// The rows of a tile are a patch of outputs of one image, such that the windows of `pooled_rows` x `pooled_columns`
// pooled outputs lie in it whole. The finished patch goes to shared memory, where each window is reduced to its largest
// element and that element's place. Windows of neighbouring patches that overlap (3x3 with stride 2) are computed by
// both.
#pragma once

#include "kernels/mma_conv/staged_tile.cuh"

namespace fastconv::mma {

// Which patch of which image.
struct PoolPatch {
  int batch, pooled_row, pooled_column;  // the first pooled output
  int row, column;  // the first output of the convolution; above and left of the map there are none

  __device__ __forceinline__ PoolPatch(const PoolWindows& pool, uint32_t index) {
    batch = pool.patches.split(index);
    const uint32_t down = pool.patches_across.split(index);
    pooled_row = down * pool.pooled_rows;
    pooled_column = index * pool.pooled_columns.divisor();
    row = pooled_row * pool.stride_height - pool.pad_top;
    column = pooled_column * pool.stride_width - pool.pad_left;
  }
};

template <class Element, int kChunk>
__device__ __forceinline__ ptx::Vector<Element, kChunk> load_columns(const Element* source, int count) {
  if (count >= kChunk) return ptx::load_vector<kChunk>(source);
  ptx::Vector<Element, kChunk> values;
#pragma unroll
  for (int j = 0; j < kChunk; ++j) values[j] = j < count ? source[j] : Element{};
  return values;
}

template <class Value, int kChunk>
__device__ __forceinline__ void store_columns(Value* destination, const ptx::Vector<Value, kChunk>& values, int count,
                                              int64_t stride, bool vector_access) {
  if (vector_access && count >= kChunk) {
    ptx::store_vector(destination, values);
  } else {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      if (j < count) destination[j * stride] = values[j];
    }
  }
}

// elements: the staged patch. A thread reduces the windows of one pooled output in a chunk of columns.
template <class Shape>
__device__ __forceinline__ void pool_patch(const typename Shape::Element* elements,
                                           const PoolGatherParameters& parameters, const PoolPatch& patch,
                                           const GatherTile& tile, int first_column) {
  using Element = typename Shape::Element;
  using Staged = StagedTile<Shape>;
  constexpr int kChunk = Shape::kChunk, kChunks = Staged::kChunksAcross;
  const PoolWindows& pool = parameters.pool;
  const OutputParameters& out = parameters.gather.out;
  const bool along_columns = out.column_stride == 1;
  const int items = pool.pooled.divisor() * kChunks;
#pragma unroll 1
  for (int i = threadIdx.x; i - static_cast<int>(threadIdx.x & 31) < items; i += Shape::kThreads) {
    __syncwarp();  // lanes without an output wait, so that the others stay abreast
    if (i >= items) continue;
    uint32_t across = i, chunk;
    if (along_columns) {
      chunk = across % kChunks;
      across /= kChunks;
    } else {
      chunk = pool.pooled.split(across);
    }
    const int down = pool.pooled_columns.split(across);
    const int row = patch.pooled_row + down, column = patch.pooled_column + across;
    const int channel = first_column + chunk * kChunk, count = parameters.gather.output_channels - channel;
    if (count <= 0 || row >= pool.pooled_height || column >= pool.pooled_width) continue;

    // The window in the map, cut off at its borders: padding never wins. There an element is looked at again, which
    // changes nothing, so that all lanes are at the same place of their windows and in different banks.
    const int map_row = row * pool.stride_height - pool.pad_top,
              map_column = column * pool.stride_width - pool.pad_left;
    const int first_r = max(0, -map_row), end_r = min(pool.rows, pool.map_height - map_row);
    const int first_s = max(0, -map_column), end_s = min(pool.columns, pool.map_width - map_column);
    const int patch_width = pool.patch_width.divisor();
    const int patch_row = down * pool.stride_height, patch_column = across * pool.stride_width;
    float best[kChunk];
    ptx::Vector<Element, kChunk> winners;
    ptx::Vector<uint8_t, kChunk> offsets;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      best[j] = -INFINITY;
      winners[j] = Numeric<Element>::store(-INFINITY);
      offsets[j] = static_cast<uint8_t>(first_r * pool.columns + first_s);
    }
#pragma unroll 1
    for (int step_r = 0; step_r < pool.rows; ++step_r) {
      const int r = min(max(step_r, first_r), end_r - 1), y = patch_row + r;
#pragma unroll 1
      for (int step_s = 0; step_s < pool.columns; ++step_s) {
        const int s = min(max(step_s, first_s), end_s - 1), x = patch_column + s;
        const auto values = load_columns<Element, kChunk>(
            elements + (y * patch_width + x) * Staged::kPitch + (static_cast<int>(chunk) ^ pool.turn(y, x)) * kChunk,
            count);
        const auto offset = static_cast<uint8_t>(r * pool.columns + s);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) {
          const float value = Numeric<Element>::load(values[j]);
          if (wins_over(value, best[j])) {
            best[j] = value;
            winners[j] = values[j];
            offsets[j] = offset;
          }
        }
      }
    }
    const int64_t all_channel = int64_t{tile.group} * parameters.gather.output_channels + channel;
    const auto place = [&](const PixelStrides& strides, int64_t column_stride) {
      return patch.batch * strides.batch + row * strides.row + column * strides.column + all_channel * column_stride;
    };
    store_columns<Element, kChunk>(
        static_cast<Element*>(out.output) + place(parameters.gather.output_strides, out.column_stride), winners, count,
        out.column_stride, out.vector_access);
    store_columns<uint8_t, kChunk>(pool.offsets + place(pool.offset_strides, pool.offset_column_stride), offsets, count,
                                   pool.offset_column_stride, pool.vector_offsets);
  }
}

template <class Shape, bool narrow>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    pool_gemm(const __grid_constant__ PoolGatherParameters parameters) {
  const GatherTile tile(parameters.gather);
  const GatherShare<Shape> share(parameters.gather, tile);
  if (share.first_column >= parameters.gather.output_channels) return;
  const PoolWindows& pool = parameters.pool;
  const PoolPatch patch(pool, tile.row_tile);
  const auto pixel_at = [&](int i) {
    uint32_t across = i;
    const int row = patch.row + static_cast<int>(pool.patch_width.split(across));
    const int column = patch.column + static_cast<int>(across);
    const bool exists =
        i < pool.patch_pixels && row >= 0 && row < pool.map_height && column >= 0 && column < pool.map_width;
    return OutputPixel{patch.batch, row, column, exists};
  };
  const auto turn_at = [&](int i) {
    uint32_t across = i;
    const int down = static_cast<int>(pool.patch_width.split(across));
    return pool.turn(down, static_cast<int>(across));
  };
  const auto* elements = stage_tile<Shape, narrow>(parameters.gather, tile, share, pixel_at, turn_at);
  pool_patch<Shape>(elements, parameters, patch, tile, share.first_column);
}

}  // namespace fastconv::mma
