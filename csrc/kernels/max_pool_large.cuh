// Max pooling with large windows, up to the whole image (global pooling): many threads find one winner.
//
// Each thread keeps the best of the elements that it sees in order, then the threads' winners are compared by value and
// place. So the first of equal ones and the last NaN win, as in a walk through the window, whatever the split.
//
// Where columns are side by side (NCHW), a warp or a block has one window, and reads it 16 bytes at a time where its
// rows follow each other without a gap. Where channels are (channels_last), a thread reads 16 bytes of them, and the
// threads of a block share the pixels. Backward of a global pool writes dx once, front to back.
#pragma once

#include "common/fast_division.h"
#include "kernels/index.cuh"
#include "kernels/max_pool_best.cuh"
#include "ptx/global_store.h"

namespace fastconv {

constexpr int kLargePoolThreads = 256;
constexpr int kLargePoolUnroll = 4;  // loads of a thread under way at once
constexpr int kNoPlace = 0x7fffffff;

struct LargePoolAxis {
  int inputs, outputs, window, stride, padding;  // H, P, R, u; or W, Q, S, v
};

struct LargePoolParameters {
  const void* input;  // forward: x [N, C, H, W]; backward: dy [N, C, 1, 1]
  void* output;       // forward: y [N, C, P, Q]; backward: dx [N, C, H, W]
  void* offsets;      // [N, C, P, Q], uint8_t or int32_t
  Strides<int64_t> input_strides, output_strides, offset_strides;
  LargePoolAxis rows, columns;
  bool offsets_are_bytes;
  bool is_one_piece;  // rows of a window follow each other without a gap; backward: rows of dx do
  int64_t windows;    // of the tensor; in channels: without those of other channels
  int lanes;          // in channels: threads side by side, a power of two
  int vectors;        // in channels: 16-byte accesses that hold a pixel's channels
  FastDivider<uint32_t> channels, output_rows, output_columns, vector_groups;
};

// What of the input a window covers. Places are row * W + column, which grow in the order of the window.
struct LargeWindow {
  int first_row, end_row, first_column, end_column;

  __device__ int row_count() const { return end_row - first_row; }
  __device__ int column_count() const { return end_column - first_column; }
};

__device__ inline LargeWindow large_window(const LargePoolParameters& p, int row, int column) {
  const int first_row = row * p.rows.stride - p.rows.padding,
            first_column = column * p.columns.stride - p.columns.padding;
  return {max(0, first_row), min(p.rows.inputs, first_row + p.rows.window), max(0, first_column),
          min(p.columns.inputs, first_column + p.columns.window)};
}

// The place r * S + s in the window of a row and column.
__device__ inline int offset_in_window(const LargePoolParameters& p, int place, const LargeWindow& window, int row,
                                       int column) {
  if (place == kNoPlace) place = window.first_row * p.columns.inputs + window.first_column;  // nothing but -inf
  const int h = place / p.columns.inputs, w = place - h * p.columns.inputs;
  return (h - row * p.rows.stride + p.rows.padding) * p.columns.window + w - column * p.columns.stride +
         p.columns.padding;
}

// The place of the element that a global pool's window has at r * S + s.
__device__ inline int place_of_offset(const LargePoolParameters& p, int offset) {
  const int r = offset / p.columns.window, s = offset - r * p.columns.window;
  const int h = r - p.rows.padding, w = s - p.columns.padding;
  if (!is_inside(h, p.rows.inputs) || !is_inside(w, p.columns.inputs)) return -1;
  return h * p.columns.inputs + w;
}

__device__ inline int large_pool_offset(const LargePoolParameters& p, int64_t at) {
  if (p.offsets_are_bytes) return static_cast<const uint8_t*>(p.offsets)[at];
  return static_cast<const int32_t*>(p.offsets)[at];
}

__device__ inline void store_large_pool_offset(const LargePoolParameters& p, int64_t at, int offset) {
  if (p.offsets_are_bytes) {
    static_cast<uint8_t*>(p.offsets)[at] = static_cast<uint8_t>(offset);
  } else {
    static_cast<int32_t*>(p.offsets)[at] = offset;
  }
}

// Elements of a 16-byte access.
template <typename T>
constexpr int kAccessElements = 16 / static_cast<int>(sizeof(T));

// How far into a 16-byte access an address lies, in elements.
template <typename T>
__device__ __forceinline__ int access_lead(const T* address) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(address) / sizeof(T) % kAccessElements<T>);
}

// The best of `count` neighbouring elements, those that fall to this of `kGroup` threads; the first is at `place`.
template <int kGroup, typename T>
__device__ __forceinline__ void take_piece(PoolBest<AccumulatorOf<T>>& best, const T* piece, int count, int place,
                                           int thread) {
  constexpr int kElements = kAccessElements<T>;
  const int lead = access_lead(piece), accesses = (lead + count + kElements - 1) / kElements;
#pragma unroll 1
  for (int access = thread; access < accesses; access += kLargePoolUnroll * kGroup) {
    ptx::Vector<T, kElements> values[kLargePoolUnroll];
    const auto first_of = [&](int i) { return (access + i * kGroup) * kElements - lead; };
    const auto is_whole = [&](int i) { return first_of(i) >= 0 && first_of(i) + kElements <= count; };
#pragma unroll
    for (int i = 0; i < kLargePoolUnroll; ++i) {
      if (is_whole(i)) values[i] = ptx::load_vector_read_only<kElements>(piece + first_of(i));
    }
#pragma unroll
    for (int i = 0; i < kLargePoolUnroll; ++i) {
      if (is_whole(i)) {
#pragma unroll
        for (int e = 0; e < kElements; ++e) take(best, Numeric<T>::load(values[i][e]), place + first_of(i) + e);
      } else {
#pragma unroll 1
        for (int j = max(0, first_of(i)); j < min(count, first_of(i) + kElements); ++j) {
          take(best, Numeric<T>::load(piece[j]), place + j);
        }
      }
    }
  }
}

template <typename Value>
__device__ __forceinline__ PoolBest<Value> best_of_warp(PoolBest<Value> best) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const PoolBest<Value> other{__shfl_xor_sync(0xffffffffu, best.value, distance),
                                __shfl_xor_sync(0xffffffffu, best.place, distance)};
    take_of_any_order(best, other);
  }
  return best;
}

// kGroup: threads that share a window, a warp or the block.
template <typename T, int kGroup>
__global__ void __launch_bounds__(kLargePoolThreads)
    max_pool_large_forward_kernel(const __grid_constant__ LargePoolParameters p) {
  using Value = AccumulatorOf<T>;
  constexpr int kGroups = kLargePoolThreads / kGroup;
  const int thread = static_cast<int>(threadIdx.x) % kGroup, group = static_cast<int>(threadIdx.x) / kGroup;
  const int64_t position = static_cast<int64_t>(blockIdx.x) * kGroups + group;
  if (position >= p.windows) return;
  uint32_t column = static_cast<uint32_t>(position);
  uint32_t row = p.output_columns.split(column), channel = p.output_rows.split(row);
  const uint32_t n = p.channels.split(channel);
  const LargeWindow window = large_window(p, static_cast<int>(row), static_cast<int>(column));

  const T* first = static_cast<const T*>(p.input) + n * p.input_strides.batch + channel * p.input_strides.channel +
                   window.first_row * p.input_strides.row + window.first_column;
  const int width = p.columns.inputs;
  PoolBest<Value> best{lowest_pool_value<Value>(), kNoPlace};
  if (p.is_one_piece) {
    take_piece<kGroup>(best, first, window.row_count() * width, window.first_row * width, thread);
  } else {
    constexpr int kWarps = kGroup / 32;
    for (int r = thread / 32; r < window.row_count(); r += kWarps) {
      const int place = (window.first_row + r) * width + window.first_column;
      take_piece<32>(best, first + r * p.input_strides.row, window.column_count(), place, thread % 32);
    }
  }
  best = best_of_warp(best);
  if constexpr (kGroup > 32) {
    __shared__ Value values[kGroup / 32];
    __shared__ int places[kGroup / 32];
    if (thread % 32 == 0) {
      values[thread / 32] = best.value;
      places[thread / 32] = best.place;
    }
    __syncthreads();
#pragma unroll 1
    for (int warp = 0; warp < kGroup / 32; ++warp) take_of_any_order(best, PoolBest<Value>{values[warp], places[warp]});
  }
  if (thread == 0) {
    const auto at = [&](const Strides<int64_t>& strides) {
      return static_cast<int64_t>(offset_of<int64_t>(strides, n, channel, row, column));
    };
    static_cast<T*>(p.output)[at(p.output_strides)] = Numeric<T>::store(best.value);
    store_large_pool_offset(p, at(p.offset_strides),
                            offset_in_window(p, best.place, window, static_cast<int>(row), static_cast<int>(column)));
  }
}

// dx of a global pool, NCHW: zeros, and dy at the winner.
template <typename T, int kGroup>
__global__ void __launch_bounds__(kLargePoolThreads)
    max_pool_large_backward_kernel(const __grid_constant__ LargePoolParameters p) {
  constexpr int kElements = kAccessElements<T>, kGroups = kLargePoolThreads / kGroup;
  const int thread = static_cast<int>(threadIdx.x) % kGroup, group = static_cast<int>(threadIdx.x) / kGroup;
  const int64_t plane = static_cast<int64_t>(blockIdx.x) * kGroups + group;
  if (plane >= p.windows) return;
  uint32_t channel = static_cast<uint32_t>(plane);
  const uint32_t n = p.channels.split(channel);
  const auto at = [&](const Strides<int64_t>& strides) { return n * strides.batch + channel * strides.channel; };
  const T gradient =
      Numeric<T>::store(Numeric<T>::load(static_cast<const T*>(p.input)[at(p.input_strides)]) + AccumulatorOf<T>{0});
  const T zero = Numeric<T>::store(0);
  const int winner = place_of_offset(p, large_pool_offset(p, at(p.offset_strides)));
  T* first = static_cast<T*>(p.output) + at(p.output_strides);
  const int count = p.rows.inputs * p.columns.inputs;
  const int lead = access_lead(first), accesses = (lead + count + kElements - 1) / kElements;
#pragma unroll 1
  for (int access = thread; access < accesses; access += kGroup) {
    const int begin = access * kElements - lead;
    if (begin >= 0 && begin + kElements <= count) {
      ptx::Vector<T, kElements> values;
#pragma unroll
      for (int e = 0; e < kElements; ++e) values[e] = begin + e == winner ? gradient : zero;
      ptx::store_global(first + begin, values);
    } else {
#pragma unroll 1
      for (int j = max(0, begin); j < min(count, begin + kElements); ++j) first[j] = j == winner ? gradient : zero;
    }
  }
}

// A thread of a block of channels: 16 bytes of them, and every so many pixels.
struct LargeChannelThread {
  int channel, pixel, pixel_step;
  bool has_channels;
};

template <typename T>
__device__ inline LargeChannelThread large_channel_thread(const LargePoolParameters& p, uint32_t vector_group) {
  const int lane = static_cast<int>(threadIdx.x) & (p.lanes - 1);
  const int vector = static_cast<int>(vector_group) * p.lanes + lane;
  return {vector * kAccessElements<T>, static_cast<int>(threadIdx.x) / p.lanes, kLargePoolThreads / p.lanes,
          vector < p.vectors};
}

template <typename T>
__global__ void __launch_bounds__(kLargePoolThreads)
    max_pool_large_channels_forward_kernel(const __grid_constant__ LargePoolParameters p) {
  using Value = AccumulatorOf<T>;
  constexpr int kElements = kAccessElements<T>;
  // One element of all threads after the other: neighbouring threads are neighbours here.
  __shared__ Value values[kElements][kLargePoolThreads];
  __shared__ int places[kElements][kLargePoolThreads];

  uint32_t vector_group = blockIdx.x;
  uint32_t column = p.vector_groups.split(vector_group);
  uint32_t row = p.output_columns.split(column);
  const uint32_t n = p.output_rows.split(row);
  const LargeChannelThread thread = large_channel_thread<T>(p, vector_group);
  const LargeWindow window = large_window(p, static_cast<int>(row), static_cast<int>(column));
  const int pixels = window.row_count() * window.column_count();
  const T* x = static_cast<const T*>(p.input) + n * p.input_strides.batch + thread.channel;

  PoolBest<Value> best[kElements];
#pragma unroll
  for (int e = 0; e < kElements; ++e) best[e] = {lowest_pool_value<Value>(), kNoPlace};
  // The pixel as (row, column) of the window, and the step likewise, so that walking takes no division.
  int r = thread.pixel / window.column_count(), s = thread.pixel - r * window.column_count();
  const int step_r = thread.pixel_step / window.column_count(),
            step_s = thread.pixel_step - step_r * window.column_count();
#pragma unroll 1
  for (int pixel = thread.pixel; thread.has_channels && pixel < pixels; pixel += kLargePoolUnroll * thread.pixel_step) {
    ptx::Vector<T, kElements> loaded[kLargePoolUnroll];
    int place[kLargePoolUnroll];
#pragma unroll
    for (int i = 0; i < kLargePoolUnroll; ++i) {
      const int h = window.first_row + r, w = window.first_column + s;
      place[i] = h * p.columns.inputs + w;
      if (pixel + i * thread.pixel_step < pixels) {
        loaded[i] = ptx::load_vector_read_only<kElements>(x + h * p.input_strides.row + w * p.input_strides.column);
      }
      s += step_s;
      const int carry = s >= window.column_count() ? 1 : 0;
      s -= carry * window.column_count();
      r += step_r + carry;
    }
#pragma unroll
    for (int i = 0; i < kLargePoolUnroll; ++i) {
      if (pixel + i * thread.pixel_step >= pixels) break;
#pragma unroll
      for (int e = 0; e < kElements; ++e) take(best[e], Numeric<T>::load(loaded[i][e]), place[i]);
    }
  }
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
    values[e][threadIdx.x] = best[e].value;
    places[e][threadIdx.x] = best[e].place;
  }
  for (int half = thread.pixel_step / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread.pixel < half) {
      const int other = static_cast<int>(threadIdx.x) + half * p.lanes;
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        take_of_any_order(best[e], PoolBest<Value>{values[e][other], places[e][other]});
        values[e][threadIdx.x] = best[e].value;
        places[e][threadIdx.x] = best[e].place;
      }
    }
  }
  if (thread.pixel > 0 || !thread.has_channels) return;
  const auto at = [&](const Strides<int64_t>& strides) {
    return static_cast<int64_t>(offset_of<int64_t>(strides, n, static_cast<uint64_t>(thread.channel), row, column));
  };
  ptx::Vector<T, kElements> winners;
#pragma unroll
  for (int e = 0; e < kElements; ++e) winners[e] = Numeric<T>::store(best[e].value);
  ptx::store_vector(static_cast<T*>(p.output) + at(p.output_strides), winners);
  const int64_t first = at(p.offset_strides);
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
    store_large_pool_offset(
        p, first + e, offset_in_window(p, best[e].place, window, static_cast<int>(row), static_cast<int>(column)));
  }
}

// dx of a global pool, channels_last. A block writes the pixels of an image that fall to its threads.
template <typename T>
__global__ void __launch_bounds__(kLargePoolThreads)
    max_pool_large_channels_backward_kernel(const __grid_constant__ LargePoolParameters p) {
  constexpr int kElements = kAccessElements<T>;
  uint32_t vector_group = blockIdx.x;
  const uint32_t n = p.vector_groups.split(vector_group);
  const LargeChannelThread thread = large_channel_thread<T>(p, vector_group);
  if (!thread.has_channels) return;
  // Once a thread, and wherever they lie: an expanded gradient has all channels at one place.
  const T* dy = static_cast<const T*>(p.input) + n * p.input_strides.batch;
  int winners[kElements];
  ptx::Vector<T, kElements> given;
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
    const int channel = thread.channel + e;
    given[e] = Numeric<T>::store(Numeric<T>::load(dy[channel * p.input_strides.channel]) + AccumulatorOf<T>{0});
    winners[e] =
        place_of_offset(p, large_pool_offset(p, n * p.offset_strides.batch + channel * p.offset_strides.channel));
  }
  T* dx = static_cast<T*>(p.output) + n * p.output_strides.batch + thread.channel;
  const int width = p.columns.inputs, pixels = p.rows.inputs * width;
  int h = thread.pixel / width, w = thread.pixel - h * width;
  const int step_h = thread.pixel_step / width, step_w = thread.pixel_step - step_h * width;
#pragma unroll 1
  for (int pixel = thread.pixel; pixel < pixels; pixel += thread.pixel_step) {
    ptx::Vector<T, kElements> values;
#pragma unroll
    for (int e = 0; e < kElements; ++e) values[e] = winners[e] == pixel ? given[e] : Numeric<T>::store(0);
    ptx::store_vector(dx + h * p.output_strides.row + w * p.output_strides.column, values);
    w += step_w;
    const int carry = w >= width ? 1 : 0;
    w -= carry * width;
    h += step_h + carry;
  }
}

}  // namespace fastconv
