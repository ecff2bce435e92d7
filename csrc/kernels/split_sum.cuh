// The second pass of a sum that several blocks share: each wrote its part to the workspace, and here the parts are
// added in the order of the splits, so that the result is the same every time.
#pragma once

#include "common/fast_division.h"
#include "common/numeric.h"
#include "kernels/index.cuh"
#include "ptx/device.h"

namespace fastconv {

constexpr int kSplitSumThreads = 128;

// Sums of this many terms are added up before they are added to the total: rounding errors grow with the longest chain.
constexpr int kChainLength = 16;

template <typename Index>
struct SplitSumParameters {
  const void* parts;  // accumulators [splits, batches, rows, columns, channels], dense
  void* output;       // [batches, channels, rows, columns]
  Strides<Index> output_strides;
  Index count;  // of outputs
  int splits;
  DividerOf<Index> channels, columns, rows;
};

template <typename T, typename Index>
__global__ void __launch_bounds__(kSplitSumThreads)
    split_sum_kernel(const __grid_constant__ SplitSumParameters<Index> p) {
  using Value = AccumulatorOf<T>;
  Unsigned<Index> channel = static_cast<Unsigned<Index>>(blockIdx.x) * kSplitSumThreads + threadIdx.x;
  if (channel >= static_cast<Unsigned<Index>>(p.count)) return;
  const Value* part = static_cast<const Value*>(p.parts) + channel;
  Value total = 0;
  for (int first = 0; first < p.splits; first += kChainLength) {
    Value sum = 0;
    const int end = min(first + kChainLength, p.splits);
#pragma unroll 4
    for (int split = first; split < end; ++split) {
      sum += *part;
      part += p.count;
    }
    total += sum;
  }
  Unsigned<Index> column = p.channels.split(channel);
  Unsigned<Index> row = p.columns.split(column);
  Unsigned<Index> batch = p.rows.split(row);
  static_cast<T*>(p.output)[offset_of(p.output_strides, batch, channel, row, column)] = Numeric<T>::store(total);
}

}  // namespace fastconv
