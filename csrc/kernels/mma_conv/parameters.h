// What the host tells the kernels. Strides are in elements and 64-bit: a thread keeps pointers and adds small distances
// to them, so one kernel serves tensors of any size.
#pragma once

#include <cstdint>

#include "common/activation.h"
#include "common/fast_division.h"
#include "kernels/padding.cuh"

namespace fastconv::mma {

struct PixelStrides {
  int64_t batch, row, column;
};

// What stands beyond the borders of x (fprop, wgrad): zeros, or what PaddedAxis says and `fill` where that is a
// constant.
struct Border {
  bool is_mapped;  // false: zeros
  float fill;
  PaddedAxis<int> rows, columns;
};

// How results are finished and stored: rows are pixels (fprop, dgrad) or filters (wgrad).
struct OutputParameters {
  void* output;
  const void* bias;      // one for each column, or null
  const void* residual;  // as output, or null
  float* partial;        // where the sum is split: [split][row][partial_pitch], float32; else null
  int64_t partial_pitch, partial_split_stride;
  int64_t column_stride, residual_column_stride;
  Activation activation;
  bool vector_access;  // columns are neighbours in memory and every chunk of them is aligned to 16 bytes
};

constexpr int kMaxAxisPhases = 16;
constexpr int kMaxPhases = kMaxAxisPhases * kMaxAxisPhases;

// One of the two spatial dimensions of the output, or of one residue class of it. Output number i of the phase lies at
// first_output + i * output_step and takes, for tap t < taps, the source at origin + i * source_step + t * tap_step.
struct AxisPhase {
  FastDivider<uint32_t> outputs;  // how many outputs the phase has
  FastDivider<uint32_t> taps;     // 0 taps divide as 1
  int first_output;
  int origin;
  int tap_count;
  int taps_before;  // taps of the phases before this one: where its weights begin
};

struct Axis {
  AxisPhase phases[kMaxAxisPhases];
  int output_step, source_step, tap_step, source_size;
};

// Convolution as a gather: fprop (one phase), dgrad and transposed convolution (one phase for each residue modulo the
// stride).
struct GatherParameters {
  const void* source;   // [N, H, W, G, C/G] by strides; fprop: x, dgrad: dy
  const void* weights;  // for each phase: [G * columns][taps][channel_pitch]
  OutputParameters out;
  PixelStrides source_strides, output_strides, residual_strides;
  Axis rows, columns;
  Border border;
  // dgrad: a tap outside of the source is no term of the sum; else it is one, times zero. An infinite weight tells them
  // apart.
  bool is_transposed;
  int64_t partial_rows_batch, partial_rows_row;  // rows of the partial sums in an image and in a row of it
  int total_taps_across;                         // taps of all column phases
  int batch;
  int source_channels, output_channels;  // of one group
  int source_group_step;                 // from a group of the source to the next, in channels
  int all_output_channels;
  FastDivider<uint32_t> channel_pitch;  // source_channels up to whole chunks
  int piece_bytes;                      // narrow kernels: what one copy moves
  int phase_count;
  FastDivider<uint32_t> tiles_of_split, tiles_of_raster, rasters, raster_width;
  FastDivider<uint32_t> splits;
  uint32_t tile_begin[kMaxPhases + 1];  // in row tiles
  uint8_t phase_row[kMaxPhases], phase_column[kMaxPhases];
};

struct WgradParameters {
  const void* gradient;  // dy [N, P, Q, G, K/G] by strides
  const void* source;    // x [N, H, W, G, C/G]
  OutputParameters out;  // rows: filters, columns: (r, s, c)
  float* partial_bias;   // [split][K], or null
  void* bias_gradient;   // [K] where the sum is not split, or null
  bool adds_to_partial;  // which hold the sums of earlier images
  PixelStrides gradient_strides, source_strides;
  Border border;
  int64_t filter_stride, tap_row_stride, tap_column_stride;  // of w
  int source_height, source_width;
  int stride_height, stride_width, pad_top, pad_left, dilation_height, dilation_width;
  int groups, filters, channels;               // filters and channels of one group
  int gradient_group_step, source_group_step;  // from a group to the next, in channels
  int taps;
  int pixels, iterations;
  int gradient_piece_bytes, source_piece_bytes;
  FastDivider<uint32_t> output_height, output_width, channel_pitch, taps_across;
  FastDivider<uint32_t> tiles_of_split, tiles_of_group, row_tiles, splits;
};

// Adds the splits in order, and finishes what the epilogue left.
struct ReduceParameters {
  OutputParameters out;
  int splits;
  // Where the partial sums are the gradient by the padded x: an element of x is added up from all the places at which
  // it stands there.
  bool is_folded;
  PaddedAxis<int> padded_rows, padded_columns;
  int64_t items;                                  // chunks of all rows
  FastDivider<uint64_t> chunks;                   // of a row
  FastDivider<uint64_t> height, width;            // rows are pixels [N, H, W]; or filters, and both are 1
  PixelStrides output_strides, residual_strides;  // a filter is a batch
  // Columns are (group, channel), or (r, s, c) where `columns_are_taps`; channels are filled up to channel_pitch.
  bool columns_are_taps;
  int channels;
  FastDivider<uint32_t> channel_pitch, taps_across;
  int64_t tap_row_stride, tap_column_stride;
  const float* partial_bias;  // [split][bias_count], or null
  void* bias_gradient;        // [bias_count]
  int64_t bias_count;
};

constexpr int kMaxTaps = 64;  // of a dimension

// Weights in the order in which the kernels want them: for each phase [outputs][taps of the phase][inputs up to whole
// chunks].
struct RepackParameters {
  const void* source;  // w [K, C/G, R, S] by strides
  void* destination;
  int64_t output_stride, group_stride, input_stride, row_stride, column_stride;  // of w
  int64_t items;
  FastDivider<uint32_t> outputs;  // of one group
  int inputs, input_pitch, all_outputs, taps_across;
  bool outputs_fastest;  // neighbouring threads take neighbouring outputs; else neighbouring taps
  FastDivider<uint32_t> taps_divider, taps_across_divider, chunks_divider, all_outputs_divider;
  // For each tap row and column: its place within its phase, the phase's taps, and the taps of phases before.
  uint8_t row_place[kMaxTaps], row_taps[kMaxTaps], rows_before[kMaxTaps];
  uint8_t column_place[kMaxTaps], column_taps[kMaxTaps], columns_before[kMaxTaps];
};

// Any layout to [N, H, W, G, channel_pitch], so that pixels are whole chunks.
struct ToChannelsLastParameters {
  const void* source;
  void* destination;
  int64_t batch_stride, row_stride, pixel_stride, channel_stride;
  FastDivider<uint32_t> rows;   // of an image that are not next to each other in memory: H or 1
  int pixels;                   // of such a row: W or H * W
  int channels, channel_pitch;  // of one group
  int all_pitches;              // groups * channel_pitch
  FastDivider<uint32_t> channel_pitch_divider, pixel_tiles, channel_tiles;
  bool vector_access;  // pixels are neighbours and aligned by 16 bytes
};

}  // namespace fastconv::mma
