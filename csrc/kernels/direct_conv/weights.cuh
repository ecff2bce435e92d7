// Weights on their way through shared memory: converted once for all pixels of a block, the filters of a thread side by
// side.
#pragma once

#include "kernels/direct_conv/parameters.cuh"

namespace fastconv {

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

}  // namespace fastconv
