// Max pooling: forward, and what its remembered winners are good for: backward, gather (the linear map whose transpose
// is backward) and indices. `offsets` holds the winner's place r * S + s inside its window.
//
// As in PyTorch: of equal values the first in the window wins, NaN wins over everything and of several NaN the last,
// padding never wins, and a window of nothing but -inf has its first element for winner. Values are copied, not
// recomputed.
//
// One thread has kPoolItems outputs, a block's width apart, so neighbouring threads read and write neighbouring
// addresses: columns in NCHW, channels in channels_last. There forward and backward take 16 bytes of channels of one
// pixel at once (kElements of them) where all operands have them so.
#pragma once

#include "common/fast_division.h"
#include "common/numeric.h"
#include "kernels/index.cuh"
#include "ptx/device.h"
#include "ptx/vector.h"

namespace fastconv {

constexpr int kPoolThreads = 128;

// Outputs of a thread, or with more than one element vectors of them.
template <int kElements>
constexpr int kPoolItems = kElements == 1 ? 4 : 1;

// Blocks that share a multiprocessor: leaves 64 registers a thread, 128 with offsets of 64 bits.
template <typename Index>
constexpr int kPoolResidentBlocks = sizeof(Index) == 8 ? 4 : 8;

template <typename Index>
struct PoolAxis {
  Index inputs, outputs;  // H and P, or W and Q
  int window, stride, padding, dilation;
  DividerOf<Index> stride_divider, dilation_divider;
};

template <typename Index>
struct PoolParameters {
  const void* input;  // forward, gather: x [N, C, H, W]; backward: dy [N, C, P, Q]
  void* output;       // forward, gather: y [N, C, P, Q]; backward: dx [N, C, H, W]; indices: int64 [N, C, P, Q]
  void* offsets;      // [N, C, P, Q], uint8_t or int32_t
  Strides<Index> input_strides, output_strides, offset_strides;
  bool offsets_are_bytes;
  PoolAxis<Index> rows, columns;
  FastDivider<uint32_t> window_columns;  // S
  Index count;                           // of outputs, or of vectors of them
  bool channels_are_fastest;  // the order in which outputs are counted: n, row, column, c; else n, c, row, column
  DividerOf<Index> output_channels, output_rows, output_columns;  // channels: or their vectors
};

template <typename Index>
struct PoolPlace {
  Unsigned<Index> n, channel, row, column;
};

template <typename Index>
__device__ inline PoolPlace<Index> pool_place(const PoolParameters<Index>& p, Unsigned<Index> position) {
  Unsigned<Index> n = position, channel, row, column;
  if (p.channels_are_fastest) {
    channel = n;
    column = p.output_channels.split(channel);
    row = p.output_columns.split(column);
    n = p.output_rows.split(row);
  } else {
    column = n;
    row = p.output_columns.split(column);
    channel = p.output_rows.split(row);
    n = p.output_channels.split(channel);
  }
  return {n, channel, row, column};
}

// Calls body(place) for each of the thread's outputs, or for the first channel of each of its vectors.
template <int kElements = 1, typename Index, typename Body>
__device__ __forceinline__ void for_each_pool_output(const PoolParameters<Index>& p, const Body& body) {
  constexpr int kItems = kPoolItems<kElements>;
  Unsigned<Index> position = static_cast<Unsigned<Index>>(blockIdx.x) * (kPoolThreads * kItems) + threadIdx.x;
#pragma unroll 1
  for (int i = 0; i < kItems; ++i, position += kPoolThreads) {
    if (position >= static_cast<Unsigned<Index>>(p.count)) return;
    PoolPlace<Index> place = pool_place(p, position);
    place.channel *= kElements;
    body(place);
  }
}

// Of a thread's channels, int32_t has 16 bytes at a time.
template <int kElements>
constexpr int kOffsetsAtOnce = kElements < 4 ? kElements : 4;

template <int kElements = 1, typename Index>
__device__ __forceinline__ ptx::Vector<int, kElements> load_offsets(const PoolParameters<Index>& p,
                                                                    Unsigned<Index> place) {
  constexpr int kAtOnce = kOffsetsAtOnce<kElements>;
  ptx::Vector<int, kElements> result;
  if (p.offsets_are_bytes) {
    const auto bytes = ptx::load_vector<kElements>(static_cast<const uint8_t*>(p.offsets) + place);
#pragma unroll
    for (int e = 0; e < kElements; ++e) result[e] = bytes[e];
  } else {
#pragma unroll
    for (int first = 0; first < kElements; first += kAtOnce) {
      const auto some = ptx::load_vector<kAtOnce>(static_cast<const int32_t*>(p.offsets) + place + first);
#pragma unroll
      for (int e = 0; e < kAtOnce; ++e) result[first + e] = some[e];
    }
  }
  return result;
}

template <int kElements, typename Index>
__device__ __forceinline__ void store_offsets(const PoolParameters<Index>& p, Unsigned<Index> place,
                                              const ptx::Vector<int, kElements>& offsets) {
  constexpr int kAtOnce = kOffsetsAtOnce<kElements>;
  if (p.offsets_are_bytes) {
    ptx::Vector<uint8_t, kElements> bytes;
#pragma unroll
    for (int e = 0; e < kElements; ++e) bytes[e] = static_cast<uint8_t>(offsets[e]);
    ptx::store_vector(static_cast<uint8_t*>(p.offsets) + place, bytes);
  } else {
#pragma unroll
    for (int first = 0; first < kElements; first += kAtOnce) {
      ptx::Vector<int32_t, kAtOnce> some;
#pragma unroll
      for (int e = 0; e < kAtOnce; ++e) some[e] = offsets[first + e];
      ptx::store_vector(static_cast<int32_t*>(p.offsets) + place + first, some);
    }
  }
}

// The first tap of an output that is not in the low padding.
template <typename Index>
__device__ inline int first_tap(const PoolAxis<Index>& axis, Index start) {
  return start >= 0 ? 0
                    : static_cast<int>(axis.dilation_divider.divide(static_cast<Unsigned<Index>>(-start) +
                                                                    static_cast<Unsigned<Index>>(axis.dilation - 1)));
}

template <typename T, typename Index, int kElements>
__global__ void __launch_bounds__(kPoolThreads, kPoolResidentBlocks<Index>)
    max_pool_forward_kernel(const __grid_constant__ PoolParameters<Index> p) {
  for_each_pool_output<kElements>(p, [&](const PoolPlace<Index>& place) {
    const Index first_row = static_cast<Index>(place.row) * p.rows.stride - p.rows.padding;
    const Index first_column = static_cast<Index>(place.column) * p.columns.stride - p.columns.padding;
    const int first_r = first_tap(p.rows, first_row), first_s = first_tap(p.columns, first_column);
    const T* plane = static_cast<const T*>(p.input) +
                     static_cast<Index>(offset_of<Index>(p.input_strides, place.n, place.channel, 0, 0));
    AccumulatorOf<T> best[kElements];
    ptx::Vector<T, kElements> winners;
    ptx::Vector<int, kElements> offsets;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      best[e] = -INFINITY;
      winners[e] = Numeric<T>::store(best[e]);
      offsets[e] = first_r * p.columns.window + first_s;
    }
    for (int r = first_r; r < p.rows.window; ++r) {
      const Index row = first_row + static_cast<Index>(r) * p.rows.dilation;
      if (row >= p.rows.inputs) break;
      const T* line = plane + row * p.input_strides.row;
      for (int s = first_s; s < p.columns.window; ++s) {
        const Index column = first_column + static_cast<Index>(s) * p.columns.dilation;
        if (column >= p.columns.inputs) break;
        const auto candidates = ptx::load_vector<kElements>(line + column * p.input_strides.column);
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          const AccumulatorOf<T> value = Numeric<T>::load(candidates[e]);
          if (value > best[e] || value != value) {
            best[e] = value;
            winners[e] = candidates[e];
            offsets[e] = r * p.columns.window + s;
          }
        }
      }
    }
    ptx::store_vector(
        static_cast<T*>(p.output) + offset_of(p.output_strides, place.n, place.channel, place.row, place.column),
        winners);
    store_offsets(p, offset_of(p.offset_strides, place.n, place.channel, place.row, place.column), offsets);
  });
}

// The windows [first, last] that may hold a position, which lies `reach` beyond the start of window 0.
template <typename Index>
struct Windows {
  Index first, last, reach;
};

template <typename Index>
__device__ inline Windows<Index> windows_over(const PoolAxis<Index>& axis, Unsigned<Index> position) {
  const Index reach = static_cast<Index>(position) + axis.padding;
  const Index before =
      reach - static_cast<Index>(axis.window - 1) * axis.dilation;  // where the first of them must start
  const Index first = before <= 0 ? 0 : axis.stride_divider.divide(before + axis.stride - 1);
  return {first, min(static_cast<Index>(axis.stride_divider.divide(reach)), axis.outputs - 1), reach};
}

// dx[position] = sum of dy over the windows that position has won, in the order of the windows.
template <typename T, typename Index, int kElements>
__global__ void __launch_bounds__(kPoolThreads, kPoolResidentBlocks<Index>)
    max_pool_backward_kernel(const __grid_constant__ PoolParameters<Index> p) {
  for_each_pool_output<kElements>(p, [&](const PoolPlace<Index>& place) {
    const Windows<Index> rows = windows_over(p.rows, place.row), columns = windows_over(p.columns, place.column);
    const T* gradients = static_cast<const T*>(p.input) +
                         static_cast<Index>(offset_of<Index>(p.input_strides, place.n, place.channel, 0, 0));
    const Unsigned<Index> offsets = offset_of<Index>(p.offset_strides, place.n, place.channel, 0, 0);
    AccumulatorOf<T> sums[kElements] = {};
    for (Index row = rows.first; row <= rows.last; ++row) {
      Unsigned<Index> gap = rows.reach - row * p.rows.stride;
      const int r = static_cast<int>(p.rows.dilation_divider.split(gap));
      if (gap != 0) continue;  // between two taps
      for (Index column = columns.first; column <= columns.last; ++column) {
        gap = columns.reach - column * p.columns.stride;
        const int s = static_cast<int>(p.columns.dilation_divider.split(gap));
        if (gap != 0) continue;
        const auto winners =
            load_offsets<kElements>(p, offsets + row * p.offset_strides.row + column * p.offset_strides.column);
        const int own = r * p.columns.window + s;
        bool has_won = false;
#pragma unroll
        for (int e = 0; e < kElements; ++e) has_won |= winners[e] == own;
        if (!has_won) continue;
        const auto given =
            ptx::load_vector<kElements>(gradients + row * p.input_strides.row + column * p.input_strides.column);
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          if (winners[e] == own) sums[e] += Numeric<T>::load(given[e]);
        }
      }
    }
    ptx::Vector<T, kElements> result;
#pragma unroll
    for (int e = 0; e < kElements; ++e) result[e] = Numeric<T>::store(sums[e]);
    ptx::store_vector(
        static_cast<T*>(p.output) + offset_of(p.output_strides, place.n, place.channel, place.row, place.column),
        result);
  });
}

// The row and column of a window's winner; outside the input for a window that has no element in it.
template <typename Index>
struct Winner {
  Index row, column;
};

template <typename Index>
__device__ inline Winner<Index> winner_of(const PoolParameters<Index>& p, const PoolPlace<Index>& place) {
  uint32_t s = load_offsets(p, offset_of(p.offset_strides, place.n, place.channel, place.row, place.column))[0];
  const uint32_t r = p.window_columns.split(s);
  return {static_cast<Index>(place.row) * p.rows.stride - p.rows.padding + static_cast<Index>(r) * p.rows.dilation,
          static_cast<Index>(place.column) * p.columns.stride - p.columns.padding +
              static_cast<Index>(s) * p.columns.dilation};
}

// y = x at each window's winner, and 0 where that is outside x. Bits: an unsigned integer as wide as the number type.
template <typename Bits, typename Index>
__global__ void __launch_bounds__(kPoolThreads, kPoolResidentBlocks<Index>)
    max_pool_gather_kernel(const __grid_constant__ PoolParameters<Index> p) {
  for_each_pool_output(p, [&](const PoolPlace<Index>& place) {
    const Winner<Index> winner = winner_of(p, place);
    Bits value = 0;
    if (is_inside(winner.row, p.rows.inputs) && is_inside(winner.column, p.columns.inputs)) {
      value = static_cast<const Bits*>(
          p.input)[offset_of(p.input_strides, place.n, place.channel, static_cast<Unsigned<Index>>(winner.row),
                             static_cast<Unsigned<Index>>(winner.column))];
    }
    static_cast<Bits*>(p.output)[offset_of(p.output_strides, place.n, place.channel, place.row, place.column)] = value;
  });
}

// indices = row * W + column of each window's winner.
template <typename Index>
__global__ void __launch_bounds__(kPoolThreads, kPoolResidentBlocks<Index>)
    max_pool_indices_kernel(const __grid_constant__ PoolParameters<Index> p) {
  for_each_pool_output(p, [&](const PoolPlace<Index>& place) {
    const Winner<Index> winner = winner_of(p, place);
    static_cast<int64_t*>(p.output)[offset_of(p.output_strides, place.n, place.channel, place.row, place.column)] =
        static_cast<int64_t>(winner.row) * p.columns.inputs + winner.column;
  });
}

}  // namespace fastconv
