// Sums that several blocks share: how many splits, where their parts lie, and the second pass.
#pragma once

#include <algorithm>

#include "kernels/split_sum.cuh"
#include "kernels/walk.cuh"
#include "launch/launch.h"
#include "launch/tiling.h"

namespace fastconv {

// Parts take at most this much workspace, unless the terms of one split would be too many for float32.
constexpr int64_t kMostWorkspaceBytes = 64 << 20;
constexpr int64_t kMostTermsOfAThread = 2048;
constexpr int64_t kLeastTermsOfAThread = 32;
constexpr int kBlocksPerMultiprocessor = 4;

struct Splits {
  int count = 1;
  int64_t terms = 0;            // of a split
  int64_t workspace_bytes = 0;  // 0 where there is one split
};

// terms: to be added up for each of `outputs`; lanes: threads of a block that share them; blocks: those without
// splitting.
inline Splits choose_splits(int64_t terms, int lanes, int64_t blocks, int64_t outputs, int accumulator_size,
                            const Target& target) {
  int64_t wanted = ceil_div(int64_t{kBlocksPerMultiprocessor} * target.multiprocessors, std::max<int64_t>(blocks, 1));
  int64_t worthwhile = terms / (kLeastTermsOfAThread * lanes);
  int64_t accurate = accumulator_size == 8 ? 1 : ceil_div(terms, kMostTermsOfAThread * lanes);
  int64_t affordable = kMostWorkspaceBytes / std::max<int64_t>(outputs * accumulator_size, 1);
  int64_t grid = kMostBlocks / std::max<int64_t>(blocks, 1);
  int64_t count = std::max(std::min(wanted, worthwhile), accurate);
  count = std::max<int64_t>(std::min({count, affordable, grid, int64_t{1} << 20}), 1);
  Splits splits;
  splits.terms = std::max<int64_t>(ceil_div(terms, count), 1);
  splits.count = static_cast<int>(std::max<int64_t>(ceil_div(terms, splits.terms), 1));
  if (splits.count > 1) splits.workspace_bytes = splits.count * outputs * accumulator_size;
  return splits;
}

// A step of `lanes` pixels as a pixel, for advance().
template <typename Index>
Pixel<Index> step_of(int64_t lanes, int64_t rows, int64_t columns) {
  rows = std::max<int64_t>(rows, 1);
  columns = std::max<int64_t>(columns, 1);
  return {static_cast<Index>(lanes / columns / rows), static_cast<Index>(lanes / columns % rows),
          static_cast<Index>(lanes % columns)};
}

template <typename Index>
using SplitSumKernel = void (*)(SplitSumParameters<Index>);

template <typename T, typename Index>
SplitSumKernel<Index> split_sum_kernel_of();

// Adds up the parts [splits, outputs] in the workspace; `output` has sizes [batches, channels, rows, columns].
template <typename T, typename Index>
void launch_split_sum(const char* name, const Operand& output, int splits, const void* parts, void* destination,
                      const Stream& stream) {
  SplitSumParameters<Index> p;
  p.parts = parts;
  p.output = destination;
  p.output_strides = Strides<Index>::of(output);
  p.count = static_cast<Index>(output.count());
  p.splits = splits;
  p.channels = DividerOf<Index>(output.sizes[1]);
  p.rows = DividerOf<Index>(output.sizes[2]);
  p.columns = DividerOf<Index>(output.sizes[3]);
  LaunchShape shape{name, static_cast<unsigned>(ceil_div(output.count(), kSplitSumThreads)), kSplitSumThreads, 0,
                    kSplitSumThreads};
  launch_kernel(shape, split_sum_kernel_of<T, Index>(), p,
                {{"workspace", parts, splits * output.count() * static_cast<int64_t>(sizeof(AccumulatorOf<T>))},
                 {"output", destination, bytes_of(output, sizeof(T)), true}},
                stream);
}

}  // namespace fastconv
