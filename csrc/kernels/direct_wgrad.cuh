// The gradient by the weight, by definition, for any type, stride, padding, dilation, group count and layout:
// dw[k, c, r, s] = sum over n, p, q of dy[n, k, p, q] * x[n, group's c, p * u + r * dilation - padding, ...].
//
// A thread owns kFilters x kColumns weights, a column being one (r, s, c), and walks over pixels: every loaded dy
// serves kColumns products, every x kFilters. Threads of a block share a tile of weights or its pixels, as the layout
// asks: neighbouring threads take neighbouring pixels where W is innermost, neighbouring channels where C is. What
// several threads have of one weight is added through shared memory in a fixed order. Blocks that share a weight
// (splits) write to the workspace, and split_sum.cuh adds them up. Padding other than zeros is an index map of x
// (kernels/padding.cuh), in instances of their own (kIsMapped).
#pragma once

#include "common/fast_division.h"
#include "common/numeric.h"
#include "kernels/padding.cuh"
#include "kernels/split_sum.cuh"
#include "kernels/walk.cuh"
#include "ptx/device.h"
#include "ptx/keep.h"

namespace fastconv {

constexpr int kDirectWgradThreads = 128;

// A power of two of a block's threads, every 2^shift-th.
struct Lanes {
  int shift, count_log2;

  FASTCONV_HOST_DEVICE int count() const { return 1 << count_log2; }
  FASTCONV_HOST_DEVICE int of(int thread) const { return (thread >> shift) & (count() - 1); }
};

// In shared memory, what the threads have of one of their weights: a row, one word longer after each warp, and of a
// pitch that lets 32 threads read any mixture of warps and weights without a bank conflict.
constexpr int kDirectWgradPitch = kDirectWgradThreads + 4;

FASTCONV_HOST_DEVICE inline int direct_wgrad_slot(int thread) {
  return thread + thread / 32;
}

template <typename Index>
struct DirectWgradParameters {
  const void* x;    // [N, C, H, W]
  const void* dy;   // [N, K, P, Q]
  void* dw;         // [K, C/G, R, S]; written where there is one split
  void* workspace;  // accumulators [splits, K, R, S, C/G]; null where there is one split
  Strides<Index> x_strides, dy_strides;
  Strides<Index> dw_strides;  // batch: K, channel: C/G
  Index height, width;        // of x
  Index rows, columns;        // P, Q
  DividerOf<Index> rows_divider, columns_divider;
  Index pixels;        // N * P * Q
  Index split_pixels;  // of a split
  Pixel<Index> step;   // from a thread's pixel to its next
  int stride[2], padding[2], dilation[2];
  Index filters, group_filters, group_channels;     // K, K/G, C/G
  Index weight_columns;                             // R * S * C/G of a filter
  DividerOf<Index> channels_divider, taps_divider;  // C/G; S
  Index chunks;                                     // of kFilters filters, each inside one group
  DividerOf<Index> chunks_per_group;
  FastDivider<uint32_t> column_blocks, filter_blocks;  // grid: column blocks fastest, then filter blocks, then splits
  Lanes pixel_lanes, column_lanes, filter_lanes;
  PaddedAxis<Index> padded_rows, padded_columns;  // of x; mapped instances only
  double fill;                                    // of padding by a constant
};

template <typename T, typename Index, int kFilters, int kColumns, bool kIsMapped>
__global__ void __launch_bounds__(kDirectWgradThreads, kResidentBlocks<AccumulatorOf<T>, Index>)
    direct_wgrad_kernel(const __grid_constant__ DirectWgradParameters<Index> p) {
  using Value = AccumulatorOf<T>;
  using Offset = Unsigned<Index>;
  uint32_t column_block = blockIdx.x;
  uint32_t filter_block = p.column_blocks.split(column_block);
  const uint32_t split = p.filter_blocks.split(filter_block);
  const int thread = threadIdx.x;

  // Which weights: kFilters of one group, and the columns `column_lanes` apart. Beyond the last, the last is computed
  // again.
  Offset chunk = static_cast<Offset>(filter_block) * p.filter_lanes.count() + p.filter_lanes.of(thread);
  chunk = min(chunk, static_cast<Offset>(p.chunks - 1));
  const Offset group = p.chunks_per_group.split(chunk);
  const T* dy = static_cast<const T*>(p.dy) +
                static_cast<Index>((group * p.group_filters + chunk * kFilters) * p.dy_strides.channel);
  Index filter_offset[kFilters];
#pragma unroll
  for (int k = 0; k < kFilters; ++k) {
    Index inside = static_cast<Index>(chunk) * kFilters + k < p.group_filters ? k : 0;
    filter_offset[k] = inside * p.dy_strides.channel;
  }
  const T* x = static_cast<const T*>(p.x) + static_cast<Index>(group * p.group_channels * p.x_strides.channel);
  const Offset first_column = static_cast<Offset>(column_block) * (p.column_lanes.count() * kColumns);
  Offset column_offset[kColumns];
  int row_shift[kColumns], column_shift[kColumns];
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    Offset channel = first_column + p.column_lanes.of(thread) + j * p.column_lanes.count();
    channel = min(channel, static_cast<Offset>(p.weight_columns - 1));
    Offset tap_column = p.channels_divider.split(channel);
    const Offset tap_row = p.taps_divider.split(tap_column);
    row_shift[j] = static_cast<int>(tap_row) * p.dilation[0] - p.padding[0];
    column_shift[j] = static_cast<int>(tap_column) * p.dilation[1] - p.padding[1];
    column_offset[j] = channel * p.x_strides.channel;
    if constexpr (!kIsMapped) {
      column_offset[j] += static_cast<Offset>(Index{row_shift[j]}) * p.x_strides.row +
                          static_cast<Offset>(Index{column_shift[j]}) * p.x_strides.column;
    }
    if constexpr (kFilters > 1) {
      row_shift[j] = ptx::keep(row_shift[j]);
      column_shift[j] = ptx::keep(column_shift[j]);
      column_offset[j] = ptx::keep(column_offset[j]);
    }
  }

  Value sums[kColumns][kFilters] = {};
  const Offset begin = static_cast<Offset>(split) * p.split_pixels;
  const Offset end = min(begin + p.split_pixels, static_cast<Offset>(p.pixels));
  Offset position = begin + p.pixel_lanes.of(thread);
  Pixel<Index> pixel = pixel_at<Index>(position, p.rows_divider, p.columns_divider);
  for (; position < end; position += p.pixel_lanes.count()) {
    const T* dy_pixel = dy + static_cast<Index>(offset_of<Index>(p.dy_strides, pixel.n, 0, pixel.row, pixel.column));
    Value gradient[kFilters];
#pragma unroll
    for (int k = 0; k < kFilters; ++k) gradient[k] = Numeric<T>::load(dy_pixel[filter_offset[k]]);
    const Index row = pixel.row * p.stride[0], column = pixel.column * p.stride[1];
    const Offset x_pixel =
        kIsMapped ? pixel.n * p.x_strides.batch : offset_of<Index>(p.x_strides, pixel.n, 0, row, column);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      Value value = 0;
      if constexpr (kIsMapped) {
        const Index from_row = padded_source(p.padded_rows, row + row_shift[j]);
        const Index from_column = padded_source(p.padded_columns, column + column_shift[j]);
        value = static_cast<Value>(p.fill);
        if (from_row >= 0 && from_column >= 0) {
          value = Numeric<T>::load(x[static_cast<Index>(x_pixel + column_offset[j] + from_row * p.x_strides.row +
                                                        from_column * p.x_strides.column)]);
        }
      } else if (is_inside(row + row_shift[j], p.height) && is_inside(column + column_shift[j], p.width)) {
        value = Numeric<T>::load(x[static_cast<Index>(x_pixel + column_offset[j])]);
      }
#pragma unroll
      for (int k = 0; k < kFilters; ++k) sums[j][k] += value * gradient[k];
    }
    advance(pixel, p.step, p.rows, p.columns);
  }

  // shared[weight of a thread][thread]; then each weight of the block is added up over the pixel lanes by one thread.
  Value* shared = ptx::dynamic_shared_memory<Value>();
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
#pragma unroll
    for (int k = 0; k < kFilters; ++k)
      shared[(j * kFilters + k) * kDirectWgradPitch + direct_wgrad_slot(thread)] = sums[j][k];
  }
  __syncthreads();
  const int owners_log2 = p.column_lanes.count_log2 + p.filter_lanes.count_log2;  // threads with different weights
  for (int item = thread; item < (kColumns * kFilters) << owners_log2; item += kDirectWgradThreads) {
    // Columns of neighbouring threads are neighbours, then a thread's own.
    const int column_lane = item & (p.column_lanes.count() - 1);
    const int filter_lane = (item >> p.column_lanes.count_log2) & (p.filter_lanes.count() - 1);
    const int own = item >> owners_log2;
    const int j = own / kFilters, k = own % kFilters;
    const Value* parts = shared + own * kDirectWgradPitch;
    const int owner = (column_lane << p.column_lanes.shift) + (filter_lane << p.filter_lanes.shift);
    Value total = 0;
    for (int first = 0; first < p.pixel_lanes.count(); first += kChainLength) {
      Value sum = 0;
      for (int lane = first; lane < min(first + kChainLength, p.pixel_lanes.count()); ++lane) {
        sum += parts[direct_wgrad_slot(owner + (lane << p.pixel_lanes.shift))];
      }
      total += sum;
    }
    Offset inside = static_cast<Offset>(filter_block) * p.filter_lanes.count() + filter_lane;
    const Offset filter_group = p.chunks_per_group.split(inside);
    inside = inside * kFilters + k;
    const Offset weight_column = first_column + column_lane + j * p.column_lanes.count();
    const Offset filter = filter_group * p.group_filters + inside;
    if (filter >= static_cast<Offset>(p.filters) || inside >= static_cast<Offset>(p.group_filters) ||
        weight_column >= static_cast<Offset>(p.weight_columns)) {
      continue;
    }
    if (p.workspace) {
      const int64_t row = static_cast<int64_t>(split) * p.filters + filter;
      static_cast<Value*>(p.workspace)[row * p.weight_columns + weight_column] = total;
    } else {
      Offset channel = weight_column;
      Offset tap_column = p.channels_divider.split(channel);
      const Offset tap_row = p.taps_divider.split(tap_column);
      static_cast<T*>(p.dw)[offset_of(p.dw_strides, filter, channel, tap_row, tap_column)] = Numeric<T>::store(total);
    }
  }
}

}  // namespace fastconv
