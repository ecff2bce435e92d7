// Convolution by definition, for any type, stride, padding, dilation, group count and layout: fprop, and dgrad as a
// gather.
//
// Both are the same sum, output[n, o, pixel] = sum over channels i and taps of input[n, i, the pixel's place at the
// tap] * w[o, i, tap], and differ in which taps a pixel has and where they lie (Axis). A thread computes kFilters
// outputs of kPixels pixels, so each loaded input serves kFilters products and each weight kPixels. Inputs are read
// where they lie: L1 holds what neighbouring taps share. Padding other than zeros has instances of its own (kIsMapped).
#pragma once

#include "kernels/direct_conv/mapped.cuh"
#include "kernels/direct_conv/terms.cuh"
#include "kernels/direct_conv/weights.cuh"

namespace fastconv {

// In float32 a sum is made of parts, of whole columns of taps and at least this many terms: one chain of all terms
// loses several times as much to rounding. In float64 a chain is accurate enough, and parts would not fit into
// registers.
constexpr int kTermsOfAPart = 16;

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

  Index row_images = 1, column_images = 1;
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
            for (Index row_image = 0; row_image < row_images; ++row_image) {
              for (Index column_image = 0; column_image < column_images; ++column_image) {
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
    x = x * p.columns.phase_stride + column_phase;
    y = y * p.rows.phase_stride + row_phase;
    if (x >= static_cast<Offset>(p.columns.outputs) || y >= static_cast<Offset>(p.rows.outputs)) continue;
#pragma unroll 1
    for (int k = 0; k < kFilters; ++k) {
      const int filter = first_filter + k * next_filter;
      const int slot = filter_slot<Value, kFilters>(filter_threads, filter / kFilters, filter % kFilters);
      const Offset channel = table.output_channel[slot];
      if (static_cast<Index>(channel) < 0) continue;
      Value value = own_pixels[i * next_pixel + slot * filter_pitch];
      if (p.rows.transposed && value != value) {
        const T* weight = static_cast<const T*>(p.weight) + table.weight_offset[slot];
        value = sum_of_terms(p, weight, static_cast<Index>(n), static_cast<Index>(channel), static_cast<Index>(y),
                             static_cast<Index>(x));
      }
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
