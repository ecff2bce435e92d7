// Max pooling of dense NCHW tensors, windows of 4 rows and columns or more with stride 1: forward. Four neighbouring
// windows of W parts cover W + 3, of which all share W - 3. What they share is compared once; from there on to the left
// and to the right the others are added one by one, and each window takes the best of both sides: W + 4 comparisons for
// four windows.
//
// First the parts are elements of a line of x, and a thread has windows side by side; the lines' winners are kept in
// shared memory. Then the parts are those, and a thread has windows below each other.
#pragma once

#include "kernels/max_pool_bands.cuh"

namespace fastconv {

constexpr int kPoolBlock = 4;

// winners[i]: of the parts i to i + window - 1. part(i): the winner of part i; parts are asked for once each.
template <typename Best, typename Part>
__device__ __forceinline__ void take_block(Best (&winners)[kPoolBlock], int window, const Part& part) {
  Best best = part(kPoolBlock - 1);
#pragma unroll 4
  for (int i = kPoolBlock; i < window; ++i) {
    const Best other = part(i);
    take(best, other.value, other.place);
  }
  winners[kPoolBlock - 1] = best;
#pragma unroll
  for (int i = kPoolBlock - 2; i >= 0; --i) {
    winners[i] = part(i);
    take(winners[i], winners[i + 1].value, winners[i + 1].place);
  }
  Best behind = part(window);
#pragma unroll
  for (int i = 1; i < kPoolBlock; ++i) {
    if (i > 1) {
      const Best other = part(window + i - 1);
      take(behind, other.value, other.place);
    }
    take(winners[i], behind.value, behind.place);
  }
}

// Dilation 1. As in max_pool_bands_walk_kernel what is not there is read as the nearest that is, under its place.
template <typename T>
__global__ void __launch_bounds__(kPlaneThreads, 8)
    max_pool_bands_blocks_kernel(const __grid_constant__ BandPoolParameters p) {
  using Best = PoolBest<AccumulatorOf<T>>;
  unsigned char* shared = ptx::dynamic_shared_memory<unsigned char>();
  const ForwardBand<T> band(p, shared);
  const int width = p.column_axis.inputs, output_width = p.column_axis.outputs;
  // Of each line of x and each column of y, in whole blocks.
  const int blocks = static_cast<int>(p.column_blocks.divisor()), pitch = blocks * kPoolBlock;
  T* row_values = reinterpret_cast<T*>(shared + p.kept_at);
  uint8_t* row_places = shared + p.kept_places_at;
  band.wait();

#pragma unroll 1
  for (int item = threadIdx.x; item < band.x.lines * blocks; item += kPlaneThreads) {
    uint32_t block = item;
    const int line = static_cast<int>(p.column_blocks.split(block));
    const int start = static_cast<int>(block) * kPoolBlock - p.column_axis.padding;
    const T* elements = band.inputs + line * width;
    Best winners[kPoolBlock];
    take_block(winners, p.column_axis.window, [&](int i) {
      const int column = min(max(start + i, 0), width - 1);
      return Best{Numeric<T>::load(elements[column]), column - start};
    });
    ptx::Vector<T, kPoolBlock> values;
    ptx::Vector<uint8_t, kPoolBlock> places;
#pragma unroll
    for (int i = 0; i < kPoolBlock; ++i) {
      values[i] = Numeric<T>::store(winners[i].value);
      places[i] = static_cast<uint8_t>(winners[i].place - i);
    }
    if constexpr (sizeof(values) <= 16) {
      ptx::store_vector(row_values + item * kPoolBlock, values);
    } else {
#pragma unroll
      for (int i = 0; i < kPoolBlock; ++i) row_values[item * kPoolBlock + i] = values[i];
    }
    ptx::store_vector(row_places + item * kPoolBlock, places);
  }
  __syncthreads();

  for_each_strip(p, band.tile, [&](int plane, int first, int rows, int q) {
    const int start = first - p.row_axis.padding, window_columns = p.column_axis.window;
    const int top = band.x.row(plane, 0, pitch) + q;  // row 0 of the plane need not be there
    Best winners[kPoolBlock];
    take_block(winners, p.row_axis.window, [&](int i) {
      const int row = min(max(start + i, 0), band.last_row), at = top + row * pitch;
      return Best{Numeric<T>::load(row_values[at]), (row - start) * window_columns + row_places[at]};
    });
    const int out = band.y.row(plane, first, output_width) + q;
#pragma unroll
    for (int i = 0; i < kPoolBlock; ++i) {
      if (i < rows) {
        band.outputs[out + i * output_width] = Numeric<T>::store(winners[i].value);
        band.offsets[out + i * output_width] = static_cast<uint8_t>(winners[i].place - i * window_columns);
      }
    }
  });
  band.store(p, shared);
}

}  // namespace fastconv
