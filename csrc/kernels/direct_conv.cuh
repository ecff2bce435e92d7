// Convolution by definition, for any type, stride, padding, dilation, group count and layout: fprop, and dgrad as a
// gather.
//
// Both are the same sum, output[n, o, pixel] = sum over channels i and taps of input[n, i, the pixel's place at the
// tap] * w[o, i, tap], and differ in which taps a pixel has and where they lie (Axis). A thread computes kFilters
// outputs of kPixels pixels, so each loaded input serves kFilters products and each weight kPixels. Weights go through
// shared memory, converted once, a thread's filters side by side. Inputs are read where they lie: L1 holds what
// neighbouring taps share.
//
// Padding other than zeros is an index map (kernels/padding.cuh), in instances of their own (kIsMapped). Forward, a tap
// beyond the border reads what the map says. In dgrad an element also takes what reached its images in the padded
// input; those have other taps than the element's own phase, so there every tap is tried and phases are not used.
#pragma once

#include "common/activation.h"
#include "common/fast_division.h"
#include "common/numeric.h"
#include "kernels/index.cuh"
#include "kernels/padding.cuh"
#include "ptx/device.h"

namespace fastconv {

constexpr int kDirectConvThreads = 128;

// In float32 a sum is made of parts, of whole columns of taps and at least this many terms: one chain of all terms
// loses several times as much to rounding. In float64 a chain is accurate enough, and parts would not fit into
// registers.
constexpr int kTermsOfAPart = 16;

// One of the two spatial dimensions. In fprop all outputs have every tap. In dgrad, tap r reaches position x of the
// gradient from y = (x + padding - r * dilation) / stride where that is whole: positions that are equal modulo the
// stride, a phase, share their taps, each `tap_step` after the last.
template <typename Index>
struct Axis {
  bool transposed;  // dgrad
  int phases;       // fprop: 1; dgrad: the stride
  int taps;         // R or S
  int dilation;     // of the taps
  int padding;      // low side
  int tap_step;     // fprop: 1; dgrad: stride / gcd(stride, dilation)
  int input_step;   // from a tap's place in the input to the next tap's
  int input_scale;  // from an output's place in the input to that of the next output of its phase
  Index inputs;     // size of the input
  Index outputs;    // size of the output
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

  // Mapped instances only: the axes of the padded x; in dgrad the strides, that y's places in it are found; and what
  // fprop reads where a constant stands.
  PaddedAxis<Index> padded[2];
  DividerOf<Index> strides[2];
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
  int first = 0;
  while (first < axis.tap_step && (phase + axis.padding - first * axis.dilation) % axis.phases != 0) ++first;
  if (first >= axis.tap_step || first >= axis.taps) return {0, 0, 0};
  return {first, (axis.taps - 1 - first) / axis.tap_step + 1,
          (phase + axis.padding - first * axis.dilation) / axis.phases};
}

// The output channel of each filter of a block and where its weights begin; -1 beyond the last.
template <typename Index>
struct FilterTable {
  Index* output_channel;  // [block filters]
  Index* weight_offset;   // [block filters]
};

// Filters that a thread loads from shared memory at once, 16 bytes of accumulators.
template <typename Value, int kFilters>
constexpr int kFilterVector = kFilters * sizeof(Value) < 16 ? kFilters : 16 / sizeof(Value);

// Where filter `k` of the thread in `lane` is staged: vectors of neighbouring lanes side by side, so that a warp's load
// has no bank conflict.
template <typename Value, int kFilters>
__device__ __forceinline__ int filter_slot(int filter_threads, int lane, int k) {
  constexpr int kVector = kFilterVector<Value, kFilters>;
  return (k / kVector * filter_threads + lane) * kVector + k % kVector;
}

template <typename Value, int kFilters, typename Index>
__device__ inline void fill_filter_table(const DirectConvParameters<Index>& p, Unsigned<Index> first_chunk,
                                         const FilterTable<Index>& table) {
  const int filter_threads = 1 << p.filter_threads_log2;
  for (int i = threadIdx.x; i < filter_threads * kFilters; i += kDirectConvThreads) {
    const int slot = filter_slot<Value, kFilters>(filter_threads, i / kFilters, i % kFilters);
    Unsigned<Index> filter = first_chunk + i / kFilters;  // the chunk, then its place in the group
    bool exists = filter < static_cast<Unsigned<Index>>(p.chunks);
    Index group = p.chunks_per_group.split(filter);
    Index inside = filter * kFilters + i % kFilters;
    exists = exists && inside < p.group_outputs;
    table.output_channel[slot] = exists ? group * p.group_outputs + inside : -1;
    table.weight_offset[slot] = exists ? group * p.weight_group + inside * p.weight_output : -1;
  }
}

// Copies w[block filters, channels, taps] to staged[(tap * stage_channels + channel) * pitch + filter], zero where
// there is none.
template <typename T, typename Index>
__device__ inline void stage_weights(const DirectConvParameters<Index>& p, const FilterTable<Index>& table, int filters,
                                     int pitch, Index first_channel, int channels, int first_row, int row_step,
                                     int rows, int first_column, int column_step, int columns,
                                     AccumulatorOf<T>* staged) {
  const T* weight = static_cast<const T*>(p.weight);
  uint32_t depth = p.stage_depth_divider.divisor();
  for (uint32_t element = threadIdx.x; element < depth * filters; element += kDirectConvThreads) {
    uint32_t filter, inside = element;
    if (p.stage_order == StageOrder::filters_fastest) {
      filter = inside & (filters - 1);
      inside = inside / filters;
    } else {
      filter = p.stage_depth_divider.split(inside);
    }
    uint32_t tap, channel = inside;
    if (p.stage_order == StageOrder::taps_fastest) {
      tap = inside;
      channel = p.stage_taps_divider.split(tap);
    } else {
      tap = p.stage_channels_divider.split(channel);
    }
    uint32_t column = tap;
    uint32_t row = p.stage_columns_divider.split(column);
    AccumulatorOf<T> value = 0;
    Index offset = table.weight_offset[filter];
    if (offset >= 0 && static_cast<int>(channel) < channels && static_cast<int>(row) < rows &&
        static_cast<int>(column) < columns) {
      offset += (first_channel + channel) * p.weight_input + (first_row + Index(row) * row_step) * p.weight_row +
                (first_column + Index(column) * column_step) * p.weight_column;
      value = Numeric<T>::load(weight[offset]);
    }
    staged[(tap * p.stage_channels + channel) * pitch + filter] = value;
  }
}

// staged: slot of the thread's first filter.
template <int kFilters, typename Value>
__device__ __forceinline__ void load_filters(const Value* staged, int filter_threads, Value (&values)[kFilters]) {
  constexpr int kVector = kFilterVector<Value, kFilters>;
#pragma unroll
  for (int i = 0; i < kFilters; i += kVector) {
    auto vector = ptx::load_vector<kVector>(staged + i * filter_threads);
#pragma unroll
    for (int j = 0; j < kVector; ++j) values[i + j] = vector[j];
  }
}

// Room between the staged weights of two (tap, channel), so that threads which stage one filter's do not meet in a
// bank.
template <int kFilters>
FASTCONV_HOST_DEVICE constexpr int direct_conv_pitch(int filters) {
  return filters + (kFilters == 1 ? 1 : 4);
}

// Mapped padding: where the input of output `position` at a tap lies on this axis, in its image-th way; -1 for none.
// Forward there is one way. position: forward its tap 0 in x, in dgrad the element of dx.
template <typename Index>
__device__ __forceinline__ Index mapped_input(const DirectConvParameters<Index>& p, int axis_number, Index position,
                                              int tap, int image) {
  const Axis<Index>& axis = axis_number == 0 ? p.rows : p.columns;
  const PaddedAxis<Index>& padded = p.padded[axis_number];
  const Index reach = static_cast<Index>(tap) * axis.dilation;
  if (!axis.transposed) return padded_source(padded, position + reach);
  const Index place = padded_image(padded, position, image);
  if (place < reach) return -1;
  Unsigned<Index> remainder = place - reach;
  const Index input = p.strides[axis_number].split(remainder);
  return remainder == 0 && input < axis.inputs ? input : -1;
}

// How many images dgrad visits of a thread's pixels: up to the last that one of them has. Forward it is one.
template <typename Index, int kPixels>
__device__ __forceinline__ int images_of(const DirectConvParameters<Index>& p, int axis,
                                         const Index (&place)[kPixels]) {
  int images = 1;
  if (!p.rows.transposed) return images;
  for (int image = 1; image < p.padded[axis].images; ++image) {
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      if (padded_image(p.padded[axis], place[i], image) >= 0) images = image + 1;
    }
  }
  return images;
}

// The inputs of a thread's pixels at a tap, in their image-th way. False where none of them adds anything.
template <typename T, typename Index, int kPixels>
__device__ __forceinline__ bool find_inputs(const DirectConvParameters<Index>& p, const Index (&row)[kPixels],
                                            const Index (&column)[kPixels], int tap_row, int tap_column, int row_image,
                                            int column_image, const Unsigned<Index> (&place)[kPixels],
                                            Index first_channel, const T* (&source)[kPixels],
                                            bool (&is_valid)[kPixels]) {
  bool is_any = !p.rows.transposed;
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    const Index r = mapped_input(p, 0, row[i], tap_row, row_image);
    const Index c = mapped_input(p, 1, column[i], tap_column, column_image);
    is_valid[i] = r >= 0 && c >= 0;
    is_any = is_any || is_valid[i];
    const Unsigned<Index> offset = place[i] + static_cast<Unsigned<Index>>(first_channel) * p.input_strides.channel +
                                   static_cast<Unsigned<Index>>(r) * p.input_strides.row +
                                   static_cast<Unsigned<Index>>(c) * p.input_strides.column;
    source[i] = static_cast<const T*>(p.input) + static_cast<Index>(is_valid[i] ? offset : 0);
  }
  return is_any;
}

template <typename Value, int kPixels, int kFilters>
__device__ __forceinline__ void add_and_clear(Value (&totals)[kPixels][kFilters], Value (&sums)[kPixels][kFilters]) {
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
#pragma unroll
    for (int k = 0; k < kFilters; ++k) {
      totals[i][k] += sums[i][k];
      sums[i][k] = 0;
    }
  }
}

template <typename T, typename Index, int kFilters, int kPixels, bool kIsMapped>
__global__ void __launch_bounds__(kDirectConvThreads, kResidentBlocks<AccumulatorOf<T>, Index>)
    direct_conv_kernel(const __grid_constant__ DirectConvParameters<Index> p) {
  using Value = AccumulatorOf<T>;
  using Offset = Unsigned<Index>;
  constexpr bool kHasParts = sizeof(Value) == 4;
  const int pixel_threads = 1 << p.pixel_threads_log2;
  const int filter_threads = 1 << p.filter_threads_log2;
  const int block_filters = filter_threads * kFilters;
  const int block_pixels = pixel_threads * kPixels;

  // Which block and which thread this is.
  uint32_t filter_block = blockIdx.x;
  uint32_t pixel_block = p.filter_blocks.split(filter_block);
  uint32_t column_phase = p.pixel_blocks.split(pixel_block);
  const int row_phase = p.column_block_phases.split(column_phase);
  const int thread = threadIdx.x;
  const int pixel_lane = p.pixels_are_fastest ? thread & (pixel_threads - 1) : thread >> p.filter_threads_log2;
  const int filter_lane = p.pixels_are_fastest ? thread >> p.pixel_threads_log2 : thread & (filter_threads - 1);
  uint32_t lane_phase = pixel_lane;
  const uint32_t lane = p.lane_phases.split(lane_phase);
  const uint32_t lanes = p.lane_phases.divide(pixel_threads);
  const bool lane_is_used = lane < lanes;
  if (p.lane_phases.divisor() > 1) column_phase = lane_phase;

  // Which taps its pixels have, and which of them are staged for the block.
  const Phase row = phase_of(p.rows, row_phase);
  const Phase column = phase_of(p.columns, column_phase);
  const bool stages_all_columns = p.lane_phases.divisor() > 1;
  const int staged_columns = stages_all_columns ? p.columns.taps : column.taps;
  const int first_staged_column = stages_all_columns ? 0 : column.first_tap;
  const int staged_column_step = stages_all_columns ? 1 : p.columns.tap_step;
  const int own_first_column = stages_all_columns ? column.first_tap : 0;
  const int own_column_step = stages_all_columns ? p.columns.tap_step : 1;
  const int own_end_column = own_first_column + column.taps * own_column_step;

  const int own_slot = filter_slot<Value, kFilters>(filter_threads, filter_lane, 0);
  const Offset first_chunk = static_cast<Offset>(filter_block) * filter_threads;
  const int pitch = direct_conv_pitch<kFilters>(block_filters);
  Index* table_memory = ptx::dynamic_shared_memory<Index>();
  const FilterTable<Index> table{table_memory, table_memory + block_filters};
  // Multiples of 16 bytes: the table has 2 * block_filters entries, padded to 4.
  Value* staged = reinterpret_cast<Value*>(table_memory + (2 * block_filters + 3) / 4 * 4);
  fill_filter_table<Value, kFilters>(p, first_chunk, table);

  // Where its pixels lie in the input at their first tap. What is beyond the last pixel computes along and is not
  // stored.
  Offset place[kPixels];
  Index input_row[kPixels], input_column[kPixels];
  Offset first_pixel = static_cast<Offset>(pixel_block) * (lanes * kPixels) + (lane_is_used ? lane : 0);
  Offset group_channel;
  {
    Offset chunk = min(first_chunk + filter_lane, static_cast<Offset>(p.chunks - 1));
    group_channel = p.chunks_per_group.divide(chunk) * p.reduced_channels;
  }
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    Offset x = min(first_pixel + i * lanes, static_cast<Offset>(p.pixels - 1));
    Offset y = p.phase_columns.split(x);
    Offset n = p.phase_rows.split(y);
    input_row[i] = static_cast<Index>(y) * p.rows.input_scale + row.place;
    input_column[i] = static_cast<Index>(x) * p.columns.input_scale + column.place;
    place[i] = n * p.input_strides.batch + group_channel * p.input_strides.channel;
    if constexpr (!kIsMapped) {
      place[i] += static_cast<Offset>(input_row[i]) * p.input_strides.row +
                  static_cast<Offset>(input_column[i]) * p.input_strides.column;
    }
  }

  int row_images = 1, column_images = 1;
  if constexpr (kIsMapped) {
    row_images = images_of(p, 0, input_row);
    column_images = images_of(p, 1, input_column);
  }
  Value sums[kPixels][kFilters] = {}, totals[kPixels][kFilters] = {};
  int terms = 0;  // in sums
  const T* input = static_cast<const T*>(p.input);
  for (Index first_channel = 0; first_channel < p.reduced_channels; first_channel += p.stage_channels) {
    const int channels = min(static_cast<Index>(p.stage_channels), p.reduced_channels - first_channel);
    for (int first_row = 0; first_row < row.taps; first_row += p.stage_rows) {
      const int rows = min(p.stage_rows, row.taps - first_row);
      int own_column = own_first_column;
      Index column_shift = 0;
      for (int first_column = 0; first_column < staged_columns; first_column += p.stage_columns) {
        const int columns = min(p.stage_columns, staged_columns - first_column);
        __syncthreads();
        stage_weights<T>(p, table, block_filters, pitch, first_channel, channels,
                         row.first_tap + first_row * p.rows.tap_step, p.rows.tap_step, rows,
                         first_staged_column + first_column * staged_column_step, staged_column_step, columns, staged);
        __syncthreads();

        for (; own_column < min(first_column + columns, own_end_column); own_column += own_column_step) {
          for (int r = 0; r < rows; ++r) {
            const Index row_shift = static_cast<Index>(first_row + r) * p.rows.input_step;
            const Offset shift = static_cast<Offset>(row_shift) * p.input_strides.row +
                                 static_cast<Offset>(column_shift) * p.input_strides.column +
                                 static_cast<Offset>(first_channel) * p.input_strides.channel;
            for (int row_image = 0; row_image < row_images; ++row_image) {
              for (int column_image = 0; column_image < column_images; ++column_image) {
                const T* source[kPixels];
                bool is_valid[kPixels];
                if constexpr (kIsMapped) {
                  if (!find_inputs(p, input_row, input_column, first_row + r, own_column, row_image, column_image,
                                   place, first_channel, source, is_valid)) {
                    continue;
                  }
                } else {
#pragma unroll
                  for (int i = 0; i < kPixels; ++i) {
                    is_valid[i] = is_inside(input_row[i] + row_shift, p.rows.inputs) &&
                                  is_inside(input_column[i] + column_shift, p.columns.inputs);
                    source[i] = input + static_cast<Index>(is_valid[i] ? place[i] + shift : 0);
                  }
                }
                const Value* weights =
                    staged + ((r * p.stage_columns + own_column - first_column) * p.stage_channels) * pitch + own_slot;
                for (int c = 0; c < channels; ++c) {
                  Value filters[kFilters];
                  load_filters(weights, filter_threads, filters);
                  weights += pitch;
#pragma unroll
                  for (int i = 0; i < kPixels; ++i) {
                    const Value fill = kIsMapped ? static_cast<Value>(p.fill) : Value(0);
                    const Value value = is_valid[i] ? Numeric<T>::load(*source[i]) : fill;
                    source[i] += p.input_strides.channel;
#pragma unroll
                    for (int k = 0; k < kFilters; ++k) sums[i][k] += value * filters[k];
                  }
                }
              }
            }
          }
          if constexpr (kHasParts) {
            terms += rows * channels;
            if (terms >= kTermsOfAPart) {
              add_and_clear(totals, sums);
              terms = 0;
            }
          }
          column_shift += p.columns.input_step;
        }
      }
    }
  }

  // The outputs change hands through shared memory, so that neighbouring threads store neighbouring addresses, and so
  // that one copy of the epilogue's code serves all of them.
  const int filter_pitch = p.pixels_are_fastest ? block_pixels : 1;
  const int pixel_pitch = p.pixels_are_fastest ? 1 : block_filters + 1;
  Value* own_pixels = staged + pixel_lane * pixel_pitch;
  const int next_pixel = pixel_threads * pixel_pitch;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
#pragma unroll
    for (int k = 0; k < kFilters; ++k) {
      own_pixels[i * next_pixel + filter_slot<Value, kFilters>(filter_threads, filter_lane, k) * filter_pitch] =
          kHasParts ? totals[i][k] + sums[i][k] : sums[i][k];
    }
  }
  __syncthreads();
  if (!lane_is_used) return;
  const int first_filter = p.pixels_are_fastest ? filter_lane * kFilters : filter_lane;
  const int next_filter = p.pixels_are_fastest ? 1 : filter_threads;
#pragma unroll 1
  for (int i = 0; i < kPixels; ++i) {
    Offset x = first_pixel + i * lanes;
    if (x >= static_cast<Offset>(p.pixels)) return;
    Offset y = p.phase_columns.split(x);
    Offset n = p.phase_rows.split(y);
    x = x * p.columns.phases + column_phase;
    y = y * p.rows.phases + row_phase;
    if (x >= static_cast<Offset>(p.columns.outputs) || y >= static_cast<Offset>(p.rows.outputs)) continue;
#pragma unroll 1
    for (int k = 0; k < kFilters; ++k) {
      const int filter = first_filter + k * next_filter;
      const int slot = filter_slot<Value, kFilters>(filter_threads, filter / kFilters, filter % kFilters);
      const Offset channel = table.output_channel[slot];
      if (static_cast<Index>(channel) < 0) continue;
      Value value = own_pixels[i * next_pixel + slot * filter_pitch];
      if (p.bias) value += Numeric<T>::load(static_cast<const T*>(p.bias)[channel]);
      if (p.residual) {
        value += Numeric<T>::load(static_cast<const T*>(p.residual)[offset_of(p.residual_strides, n, channel, y, x)]);
      }
      value = activate(p.activation, value);
      static_cast<T*>(p.output)[offset_of(p.output_strides, n, channel, y, x)] = Numeric<T>::store(value);
    }
  }
}

}  // namespace fastconv
