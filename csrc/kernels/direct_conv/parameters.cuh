// What the host tells the direct kernel of fprop and dgrad, and which taps an output has.
#pragma once

#include "common/activation.h"
#include "common/fast_division.h"
#include "common/numeric.h"
#include "kernels/index.cuh"
#include "kernels/padding.cuh"
#include "ptx/device.h"

namespace fastconv {

constexpr int kDirectConvThreads = 128;

// One of the two spatial dimensions. In fprop all outputs have every tap. In dgrad, tap r reaches position x of the
// gradient from y = (x + padding - r * dilation) / stride where that is whole: positions that are equal modulo the
// stride, a phase, share their taps, each `tap_step` after the last.
template <typename Index>
struct Axis {
  bool transposed;   // dgrad
  int phase_stride;  // fprop: 1; dgrad: the stride
  int taps;          // R or S
  int dilation;      // of the taps
  int padding;       // low side
  int tap_step;      // fprop: 1; dgrad: stride / gcd(stride, dilation)
  int input_step;    // from a tap's place in the input to the next tap's
  int input_scale;   // from an output's place in the input to that of the next output of its phase
  Index inputs;      // size of the input
  Index outputs;     // size of the output
};

enum class StageOrder { channels_fastest, taps_fastest, filters_fastest };

template <typename Index>
struct DirectConvParameters {
  const void* input;     // fprop: x [N, C, H, W]; dgrad: dy [N, K, P, Q]
  const void* weight;    // [K, C/G, R, S]
  const void* bias;      // [output channels], or null
  const void* residual;  // as output, or null
  void* output;          // fprop: y [N, K, P, Q]; dgrad: dx [N, C, H, W]
  Strides<Index> input_strides, residual_strides, output_strides;
  Index weight_group, weight_output, weight_input, weight_row, weight_column;  // strides
  Axis<Index> rows, columns;
  Index pixels;                                // of a phase: N * phase_rows * phase_columns
  DividerOf<Index> phase_rows, phase_columns;  // outputs of a phase, rounded up
  Index reduced_channels;                      // of a group, summed over
  Index group_outputs;                         // output channels of a group
  Index chunks;                                // of kFilters output channels, each inside one group
  DividerOf<Index> chunks_per_group;
  Activation activation;

  // The grid: filter blocks fastest, then pixel blocks, then the phases of columns and of rows.
  FastDivider<uint32_t> filter_blocks, pixel_blocks, column_block_phases;
  // The block: pixel threads * filter threads = kDirectConvThreads, both powers of two.
  int pixel_threads_log2, filter_threads_log2;
  bool pixels_are_fastest;  // neighbouring threads have neighbouring pixels; else neighbouring filters
  // Lanes can take all column phases in turn, to write neighbouring columns; else (1) a block has one phase.
  FastDivider<uint32_t> lane_phases;

  // What is staged at a time: stage_rows * stage_columns taps of stage_channels channels.
  int stage_rows, stage_columns, stage_channels;
  FastDivider<uint32_t> stage_columns_divider, stage_channels_divider, stage_taps_divider, stage_depth_divider;
  StageOrder stage_order;  // as the weight lies in memory

  // Mapped instances only: the axes of the padded x; in dgrad the strides, that y's places in it are found, and how
  // many of y's first and last places can reach the padding; and what fprop reads where a constant stands.
  PaddedAxis<Index> padded[2];
  DividerOf<Index> strides[2];
  Index first_padded[2], last_padded[2];
  double fill;
};

// Which taps the outputs of a phase have, and the place of its output 0 at the first of them.
struct Phase {
  int first_tap;
  int taps;
  int place;
};

template <typename Index>
__device__ inline Phase phase_of(const Axis<Index>& axis, int phase) {
  if (!axis.transposed) return {0, axis.taps, -axis.padding};
  const int tried = min(axis.tap_step, axis.taps);
  Index reached = static_cast<Index>(phase) + axis.padding;  // by the first tap, in steps of one
  int first = 0;
  while (first < tried && reached % axis.phase_stride != 0) ++first, reached -= axis.dilation;
  if (first == tried) return {0, 0, 0};
  return {first, (axis.taps - 1 - first) / axis.tap_step + 1, static_cast<int>(reached / axis.phase_stride)};
}

}  // namespace fastconv
