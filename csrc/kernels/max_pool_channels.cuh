// Max pooling where the channel is innermost: 2x2 with stride 2, and 3x3 with stride 2 and padding 1.
//
// A thread has 16 bytes of channels of kChannelColumns neighbouring windows and walks down a strip of rows. Forward
// reads two new rows of x a step; the winners of the row that two windows share stay in registers, and so do the
// columns that the thread's windows share. Backward has kChannelColumns pairs of dx's columns and walks down pairs of
// rows: a step reads one row of gradients and places and keeps it for the next. No shared memory, and no barrier.
#pragma once

#include "common/fast_division.h"
#include "kernels/max_pool_best.cuh"

namespace fastconv {

constexpr int kChannelThreads = 128;
// Resident blocks: 168 registers a thread hold three rows of five columns.
constexpr int kChannelBlocks = 3;

// Windows of a row that a thread has: of 3x3, two, so that they read 5 columns rather than 6.
template <int kWindow>
constexpr int kChannelColumns = kWindow == 3 ? 2 : 1;

// In elements; the channel's is 1.
struct ChannelStrides {
  int64_t batch, row, column;
};

struct ChannelPoolParameters {
  const void* input;  // forward: x [N, C, H, W]; backward: dy [N, C, P, Q]
  void* output;       // forward: y [N, C, P, Q]; backward: dx [N, C, H, W]
  uint8_t* offsets;   // [N, C, P, Q]
  ChannelStrides input_strides, output_strides, offset_strides;
  int height, width, output_height, output_width;  // H, W, P, Q
  int rows, strip;                                 // output rows, or pairs of input rows; those of a thread
  uint32_t items;                                  // threads that have something to do
  FastDivider<uint32_t> vectors, groups, strips;   // of a pixel's channels, of a row's columns, of an image's rows
};

struct ChannelItem {
  int64_t n;
  int channel, column, first_row, end_row;  // column: of the group's first window
};

template <int kElements, int kColumns>
__device__ __forceinline__ ChannelItem channel_item(const ChannelPoolParameters& p, uint32_t item) {
  uint32_t vector = item;
  uint32_t group = p.vectors.split(vector);
  uint32_t strip = p.groups.split(group);
  const uint32_t n = p.strips.split(strip);
  const int first = static_cast<int>(strip) * p.strip;
  return {static_cast<int64_t>(n), static_cast<int>(vector) * kElements, static_cast<int>(group) * kColumns, first,
          min(first + p.strip, p.rows)};
}

// One row of the input as a thread sees it: the columns from 2 * (its first window) - padding on.
template <int kWindow, typename T, int kElements>
struct ChannelRow {
  static constexpr int kWindows = kChannelColumns<kWindow>;
  static constexpr int kColumns = 2 * (kWindows - 1) + kWindow;
  ptx::Vector<T, kElements> columns[kColumns];

  __device__ __forceinline__ void load(const T* row, const ChannelPoolParameters& p, int first_column, bool is_there) {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int column = first_column + i;
      if (is_there && column >= 0 && column < p.width) {
        columns[i] = ptx::load_vector_read_only<kElements>(row + column * p.input_strides.column);
      } else {
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          columns[i][e] = Numeric<T>::store(lowest_pool_value<AccumulatorOf<T>>());
        }
      }
    }
  }

  // The winner among the columns of one window, for one channel. Its place is s.
  __device__ __forceinline__ PoolBest<AccumulatorOf<T>> best(int window, int e, bool has_left) const {
    const int first = 2 * window;
    PoolBest<AccumulatorOf<T>> best{Numeric<T>::load(columns[first][e]), kWindow == 3 && !has_left ? 1 : 0};
#pragma unroll
    for (int s = 1; s < kWindow; ++s) take(best, Numeric<T>::load(columns[first + s][e]), s);
    return best;
  }
};

// The winners of a row, packed as they were in memory, until the window below asks for them.
template <int kWindow, typename T, int kElements>
struct ChannelWinners {
  ptx::Vector<T, kElements> values[kChannelColumns<kWindow>];
  ptx::Vector<uint8_t, kElements> places[kChannelColumns<kWindow>];
};

template <int kWindow, typename T>
__global__ void __launch_bounds__(kChannelThreads, kChannelBlocks)
    max_pool_channels_forward_kernel(const __grid_constant__ ChannelPoolParameters p) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T));
  constexpr int kWindows = kChannelColumns<kWindow>, kPadding = kWindowPadding<kWindow>;
  using Value = AccumulatorOf<T>;
  using Row = ChannelRow<kWindow, T, kElements>;
  const uint32_t position = blockIdx.x * kChannelThreads + threadIdx.x;
  if (position >= p.items) return;
  const ChannelItem item = channel_item<kElements, kWindows>(p, position);

  const T* x = static_cast<const T*>(p.input) + item.n * p.input_strides.batch + item.channel;
  T* y = static_cast<T*>(p.output) + item.n * p.output_strides.batch + item.first_row * p.output_strides.row +
         item.column * p.output_strides.column + item.channel;
  uint8_t* offsets = p.offsets + item.n * p.offset_strides.batch + item.first_row * p.offset_strides.row +
                     item.column * p.offset_strides.column + item.channel;
  const int first_column = 2 * item.column - kPadding;
  const auto load = [&](Row& row, int h) {
    row.load(x + h * p.input_strides.row, p, first_column, h >= 0 && h < p.height);
  };

  ChannelWinners<kWindow, T, kElements> above;
  if constexpr (kWindow == 3) {
    Row row;
    load(row, 2 * item.first_row - 1);
#pragma unroll
    for (int window = 0; window < kWindows; ++window) {
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        const bool has_left = item.column + window > 0;
        const PoolBest<Value> best = row.best(window, e, has_left);
        above.values[window][e] = Numeric<T>::store(best.value);
        // A window without its first row begins in its second.
        above.places[window][e] = static_cast<uint8_t>(best.place + (item.first_row > 0 ? 0 : 3));
      }
    }
  }
#pragma unroll 1
  for (int row = item.first_row; row < item.end_row; ++row) {
    Row middle, below;
    load(middle, 2 * row);
    load(below, 2 * row + 1);
#pragma unroll
    for (int window = 0; window < kWindows; ++window) {
      const bool has_left = item.column + window > 0;
      ptx::Vector<T, kElements> values;
      ptx::Vector<uint8_t, kElements> places;
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        PoolBest<Value> best = middle.best(window, e, has_left);
        const PoolBest<Value> last = below.best(window, e, has_left);
        if constexpr (kWindow == 3) {
          const PoolBest<Value> second = best;
          best = {Numeric<T>::load(above.values[window][e]), above.places[window][e]};
          take(best, second.value, second.place + 3);
          take(best, last.value, last.place + 6);
          above.values[window][e] = Numeric<T>::store(last.value);
          above.places[window][e] = static_cast<uint8_t>(last.place);
        } else {
          take(best, last.value, last.place + 2);
        }
        values[e] = Numeric<T>::store(best.value);
        places[e] = static_cast<uint8_t>(best.place);
      }
      if (item.column + window < p.output_width) {
        ptx::store_vector(y + window * p.output_strides.column, values);
        ptx::store_vector(offsets + window * p.offset_strides.column, places);
      }
    }
    y += p.output_strides.row;
    offsets += p.offset_strides.row;
  }
}

// One row of windows as backward sees it: a thread's own, and for 3x3 the one to the right of them.
template <int kWindow, typename T, int kElements>
struct ChannelWindowRow {
  static constexpr int kWindows = kChannelColumns<kWindow> + kWindowPadding<kWindow>;
  ptx::Vector<T, kElements> gradients[kWindows];
  ptx::Vector<uint8_t, kElements> places[kWindows];

  __device__ __forceinline__ void load(const T* dy, const uint8_t* offsets, const ChannelPoolParameters& p,
                                       int first_column, bool is_there) {
#pragma unroll
    for (int i = 0; i < kWindows; ++i) {
      if (is_there && first_column + i < p.output_width) {
        gradients[i] = ptx::load_vector_read_only<kElements>(dy + i * p.input_strides.column);
        places[i] = ptx::load_vector_read_only<kElements>(offsets + i * p.offset_strides.column);
      } else {
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          gradients[i][e] = Numeric<T>::store(0);
          places[i][e] = kNoWinner;
        }
      }
    }
  }

  __device__ __forceinline__ PoolWinner<AccumulatorOf<T>> winner(int window, int e) const {
    return {Numeric<T>::load(gradients[window][e]), places[window][e]};
  }
};

template <int kWindow, typename T>
__global__ void __launch_bounds__(kChannelThreads, kChannelBlocks)
    max_pool_channels_backward_kernel(const __grid_constant__ ChannelPoolParameters p) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T));
  constexpr int kWindows = kChannelColumns<kWindow>;
  using Value = AccumulatorOf<T>;
  using Row = ChannelWindowRow<kWindow, T, kElements>;
  using Vector = ptx::Vector<T, kElements>;
  const uint32_t position = blockIdx.x * kChannelThreads + threadIdx.x;
  if (position >= p.items) return;
  const ChannelItem item = channel_item<kElements, kWindows>(p, position);

  const T* dy = static_cast<const T*>(p.input) + item.n * p.input_strides.batch + item.first_row * p.input_strides.row +
                item.column * p.input_strides.column + item.channel;
  const uint8_t* offsets = p.offsets + item.n * p.offset_strides.batch + item.first_row * p.offset_strides.row +
                           item.column * p.offset_strides.column + item.channel;
  T* dx = static_cast<T*>(p.output) + item.n * p.output_strides.batch + 2 * item.first_row * p.output_strides.row +
          2 * item.column * p.output_strides.column + item.channel;
  Row here;
  if constexpr (kWindow == 3) here.load(dy, offsets, p, item.column, item.first_row < p.output_height);
#pragma unroll 1
  for (int row = item.first_row; row < item.end_row; ++row) {
    Row below;
    if constexpr (kWindow == 3) {
      dy += p.input_strides.row;
      offsets += p.offset_strides.row;
      below.load(dy, offsets, p, item.column, row + 1 < p.output_height);
    } else {
      here.load(dy, offsets, p, item.column, row < p.output_height);
      dy += p.input_strides.row;
      offsets += p.offset_strides.row;
    }
#pragma unroll
    for (int window = 0; window < kWindows; ++window) {
      Vector upper[2], lower[2];
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        PoolWinner<Value> right{}, under{}, corner{};
        if constexpr (kWindow == 3) {
          right = here.winner(window + 1, e);
          under = below.winner(window, e);
          corner = below.winner(window + 1, e);
        }
        Value above[2], beneath[2];
        gather_gradients<kWindow>(above, beneath, here.winner(window, e), right, under, corner);
#pragma unroll
        for (int s = 0; s < 2; ++s) {
          upper[s][e] = Numeric<T>::store(above[s]);
          lower[s][e] = Numeric<T>::store(beneath[s]);
        }
      }
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const int column = 2 * (item.column + window) + s;
        T* target = dx + (2 * window + s) * p.output_strides.column;
        if (column < p.width) {
          ptx::store_vector(target, upper[s]);
          if (2 * row + 1 < p.height) ptx::store_vector(target + p.output_strides.row, lower[s]);
        }
      }
    }
    dx += 2 * p.output_strides.row;
    if constexpr (kWindow == 3) here = below;
  }
}

}  // namespace fastconv
