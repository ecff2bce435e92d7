// Max pooling where the channel is innermost, square windows that overlap: forward. As in max_pool_channels.cuh a
// thread has 16 bytes of channels and walks down a strip of rows, and the winners of the rows that windows share stay
// in registers, packed as in memory. With stride 1 it has two neighbouring windows, which share all but their outermost
// columns.
//
// A column or row that is not there is read as the nearest that is, a second time and under its place: it is in the
// window too, and the same element again changes neither value nor place.
#pragma once

#include "kernels/max_pool_bands.cuh"
#include "kernels/max_pool_channels.cuh"

namespace fastconv {

struct ChannelWalkParameters : ChannelPoolParameters {
  int row_padding, column_padding;
};

// Neighbouring windows of a thread. The rows of two of 5x5 would not fit into registers.
template <int kWindow, int kStride>
constexpr int kChannelWalkColumns = kStride == 1 && kWindow < 5 ? 2 : 1;

template <int kWindow, int kStride, typename T>
__global__ void __launch_bounds__(kChannelThreads, kChannelBlocks)
    max_pool_walk_forward_kernel(const __grid_constant__ ChannelWalkParameters p) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T)), kColumns = kChannelWalkColumns<kWindow, kStride>;
  constexpr int kTaps = kWindow + (kColumns - 1) * kStride, kKept = kWindow - kStride;
  using Best = PoolBest<AccumulatorOf<T>>;
  // Of one row of x: the winners of its part of the thread's windows.
  struct Line {
    ptx::Vector<T, kElements> values[kColumns];
    ptx::Vector<uint8_t, kElements> places[kColumns];
  };
  const uint32_t position = blockIdx.x * kChannelThreads + threadIdx.x;
  if (position >= p.items) return;
  const ChannelItem item = channel_item<kElements, kColumns>(p, position);

  const int first_column = item.column * kStride - p.column_padding;
  const T* x = static_cast<const T*>(p.input) + item.n * p.input_strides.batch + item.channel;
  const T* taps[kTaps];
  int places[kTaps];
#pragma unroll
  for (int t = 0; t < kTaps; ++t) {
    const int column = min(max(first_column + t, 0), p.width - 1);
    taps[t] = x + column * p.input_strides.column;
    places[t] = column - first_column;
  }
  // Places are row * kWindow + column, seen from the first of the windows whose first row is `from`. Below 0 they wrap
  // around, and come back before a window takes them.
  const auto load = [&](Line& line, int from, int row) {
    const int inside = min(max(row, 0), p.height - 1), begin = (inside - from) * kWindow;
    ptx::Vector<T, kElements> loaded[kTaps];
#pragma unroll
    for (int t = 0; t < kTaps; ++t) {
      loaded[t] = ptx::load_vector_read_only<kElements>(taps[t] + inside * p.input_strides.row);
    }
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      Best winners[kColumns];
      take_windows<kWindow>(winners, [&](int t) { return Best{Numeric<T>::load(loaded[t][e]), begin + places[t]}; });
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        line.values[c][e] = Numeric<T>::store(winners[c].value);
        line.places[c][e] = static_cast<uint8_t>(winners[c].place);
      }
    }
  };

  int row = item.first_row * kStride - p.row_padding;
  T* y = static_cast<T*>(p.output) + item.n * p.output_strides.batch + item.first_row * p.output_strides.row +
         item.column * p.output_strides.column + item.channel;
  uint8_t* offsets = p.offsets + item.n * p.offset_strides.batch + item.first_row * p.offset_strides.row +
                     item.column * p.offset_strides.column + item.channel;
  Line lines[kWindow];
#pragma unroll
  for (int k = 0; k < kKept; ++k) load(lines[k], row, row + k);
#pragma unroll 1
  for (int i = item.first_row; i < item.end_row; ++i, row += kStride) {
#pragma unroll
    for (int k = kKept; k < kWindow; ++k) load(lines[k], row, row + k);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      ptx::Vector<T, kElements> values;
      ptx::Vector<uint8_t, kElements> found;
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        Best best{Numeric<T>::load(lines[0].values[c][e]), lines[0].places[c][e]};
#pragma unroll
        for (int k = 1; k < kWindow; ++k) take(best, Numeric<T>::load(lines[k].values[c][e]), lines[k].places[c][e]);
        values[e] = Numeric<T>::store(best.value);
        found[e] = static_cast<uint8_t>(best.place - c * kStride);
      }
      if (item.column + c < p.output_width) {
        ptx::store_vector(y + c * p.output_strides.column, values);
        ptx::store_vector(offsets + c * p.offset_strides.column, found);
      }
    }
    y += p.output_strides.row;
    offsets += p.offset_strides.row;
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      lines[k] = lines[k + kStride];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < kElements; ++e) lines[k].places[c][e] -= static_cast<uint8_t>(kStride * kWindow);
      }
    }
  }
}

}  // namespace fastconv
