// Sums of x [N, C, H, W] over N, H and W, the gradient of a bias: every element is read once, neighbouring threads
// reading neighbouring ones in either layout, four loads in flight. Chains of additions stay short (kChainLength), and
// the order is fixed: thread, block, splits.
#pragma once

#include "common/fast_division.h"
#include "common/numeric.h"
#include "kernels/split_sum.cuh"
#include "kernels/walk.cuh"
#include "ptx/device.h"

namespace fastconv {

constexpr int kChannelSumThreads = 256;

template <typename Index>
struct ChannelSumParameters {
  const void* x;    // [N, C, H, W]; dimensions that continue each other may be given as one
  void* sums;       // [C]; written where there is one split
  void* workspace;  // accumulators [splits, C]; null where there is one split
  Strides<Index> strides;
  Index channels, rows, columns;
  DividerOf<Index> rows_divider, columns_divider;
  Index pixels;                          // N * H * W
  Index split_pixels;                    // of a split
  Pixel<Index> step;                     // from a thread's pixel to its next
  FastDivider<uint32_t> channel_blocks;  // grid: channel blocks fastest, then splits
  int pixel_lanes_log2, channel_lanes_log2;
  bool channels_are_fastest;  // neighbouring threads have neighbouring channels; else neighbouring pixels
};

template <typename T, typename Index>
__global__ void __launch_bounds__(kChannelSumThreads)
    channel_sum_kernel(const __grid_constant__ ChannelSumParameters<Index> p) {
  using Value = AccumulatorOf<T>;
  using Offset = Unsigned<Index>;
  uint32_t channel_block = blockIdx.x;
  const uint32_t split = p.channel_blocks.split(channel_block);
  const int pixel_lanes = 1 << p.pixel_lanes_log2, channel_lanes = 1 << p.channel_lanes_log2;
  const int thread = threadIdx.x;
  const int pixel_lane = p.channels_are_fastest ? thread >> p.channel_lanes_log2 : thread & (pixel_lanes - 1);
  const int channel_lane = p.channels_are_fastest ? thread & (channel_lanes - 1) : thread >> p.pixel_lanes_log2;
  const Offset channel = static_cast<Offset>(channel_block) * channel_lanes + channel_lane;
  const bool exists = channel < static_cast<Offset>(p.channels);

  Value total = 0;
  if (exists) {
    const T* x = static_cast<const T*>(p.x) + static_cast<Index>(channel * p.strides.channel);
    const Offset begin = static_cast<Offset>(split) * p.split_pixels;
    const Offset end = min(begin + p.split_pixels, static_cast<Offset>(p.pixels));
    Offset position = begin + pixel_lane;
    Pixel<Index> pixel = pixel_at<Index>(position, p.rows_divider, p.columns_divider);
    constexpr int kAtOnce = 4;
    while (position < end) {
      Value sums[kAtOnce] = {};
      for (int i = 0; i < kChainLength && position < end; ++i) {
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          if (position < end) {
            sums[j] += Numeric<T>::load(
                x[static_cast<Index>(offset_of<Index>(p.strides, pixel.n, 0, pixel.row, pixel.column))]);
          }
          advance(pixel, p.step, p.rows, p.columns);
          position += pixel_lanes;
        }
      }
      total += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
  }

  __shared__ Value shared[kChannelSumThreads];
  shared[thread] = total;
  for (int half = pixel_lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    const int other = p.channels_are_fastest ? thread + (half << p.channel_lanes_log2) : thread + half;
    if (pixel_lane < half) shared[thread] += shared[other];
  }
  if (pixel_lane != 0 || !exists) return;
  if (p.workspace) {
    static_cast<Value*>(p.workspace)[static_cast<int64_t>(split) * p.channels + channel] = shared[thread];
  } else {
    static_cast<T*>(p.sums)[channel] = Numeric<T>::store(shared[thread]);
  }
}

}  // namespace fastconv
