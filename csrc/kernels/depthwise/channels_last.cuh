// Depthwise fprop and dgrad, channels innermost.
//
// A block stages a tile of the source and the slab's weights, float32, in shared memory; each is read from global
// memory once. A thread computes kStrip neighbouring outputs of 16 bytes of channels. Tap row by tap row it holds the
// row's weights in registers and walks along the source, so that a loaded chunk serves every output and tap that it
// meets. In dgrad with a stride, outputs that are equal modulo the stride share their taps and are neighbours in the
// source: the thread takes kStrip of one phase.
#pragma once

#include "kernels/depthwise/epilogue.cuh"
#include "kernels/depthwise/not_finite.cuh"
#include "kernels/depthwise/slab.cuh"

namespace fastconv::depthwise {

struct ChannelsLastParameters {
  const void* source;    // fprop: x [N, H, W, C]; dgrad: dy [N, P, Q, C]
  const void* weights;   // [C, R, S]
  const void* bias;      // [C], or null
  const void* residual;  // as output, or null
  void* output;
  int64_t source_batch, source_row, source_column;
  int64_t output_batch, output_row, output_column;
  int64_t residual_batch, residual_row, residual_column;
  bool vector_source, vector_output, vector_residual;
  Weights weight_strides;
  Axis rows, columns;
  bool transposed, reversed;  // see geometry.h
  int channels;
  Activation activation;
  SlabTile tile;
  int slab_log2;
  int strips;                     // of a phase's columns, in a tile
  int phase_rows;                 // outputs rows of a phase, in a tile
  int row_phases, column_phases;  // of the outputs: the stride where transposed, else 1
  FastDivider<uint32_t> strips_divider, phase_rows_divider, column_phases_divider;
  FastDivider<uint32_t> slabs, column_tiles, row_tiles;  // grid: slabs fastest, then column tiles, row tiles, images
};

// Where, among the slab's floats of one tap, four channels are: group g of chunk c is number 2 c + g (float32: c).
// Groups change places in every other four chunks, so that eight threads with eight chunks read eight groups of four
// banks.
template <typename T>
__device__ __forceinline__ int slab_weight_group(int chunk, int group) {
  return kChunk<T> == 4 ? chunk : 2 * chunk + (group ^ (chunk >> 2 & 1));
}

template <typename T>
__device__ __forceinline__ void load_slab_weights(const float* tap, int chunk, float (&values)[kChunk<T>]) {
#pragma unroll
  for (int group = 0; group < kChunk<T> / 4; ++group) {
    const auto four = ptx::load_vector<4>(tap + 4 * slab_weight_group<T>(chunk, group));
#pragma unroll
    for (int i = 0; i < 4; ++i) values[4 * group + i] = four[i];
  }
}

// staged: taps, then the bias, `slab channels` floats each. Weights are read as they lie, some taps of every channel at
// a time, and turned through `turned`, which holds kTurnedTaps floats of each channel.
constexpr int kTurnedTaps = 49;

// Returns whether all that this thread has read are finite.
template <typename T>
__device__ __forceinline__ bool stage_slab_weights(float* staged, float* turned, const ChannelsLastParameters& p,
                                                   int first_channel) {
  const int slab_channels = kChunk<T> << p.slab_log2, taps = p.rows.taps * p.columns.taps;
  bool finite = true;
#pragma unroll 1
  for (int first = 0; first < taps; first += kTurnedTaps) {
    const int count = min(kTurnedTaps, taps - first);
    const int pitch = count | 1;
    if (first > 0) __syncthreads();
    for (int i = threadIdx.x; i < slab_channels * count; i += kSlabThreads) {
      const int local = i / count, tap = first + i - local * count, channel = first_channel + local;
      const int source_tap = p.reversed ? taps - 1 - tap : tap;
      const int r = source_tap / p.columns.taps, s = source_tap - r * p.columns.taps;
      const int64_t place = channel * p.weight_strides.filter + r * p.weight_strides.row + s * p.weight_strides.column;
      const float value = channel < p.channels ? Numeric<T>::load(static_cast<const T*>(p.weights)[place]) : 0.0f;
      turned[local * pitch + tap - first] = value;
      finite = finite && is_finite(value);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < slab_channels * count; i += kSlabThreads) {
      const int local = i & (slab_channels - 1), tap = i / slab_channels;
      const int group = slab_weight_group<T>(local / kChunk<T>, local / 4 % (kChunk<T> / 4));
      staged[(first + tap) * slab_channels + 4 * group + local % 4] = turned[local * pitch + tap];
    }
  }
  for (int i = threadIdx.x; i < slab_channels; i += kSlabThreads) {
    const int channel = first_channel + i, group = slab_weight_group<T>(i / kChunk<T>, i / 4 % (kChunk<T> / 4));
    const bool exists = p.bias != nullptr && channel < p.channels;
    staged[taps * slab_channels + 4 * group + i % 4] =
        exists ? Numeric<T>::load(static_cast<const T*>(p.bias)[channel]) : 0.0f;
  }
  return finite;
}

// The gradient's sums of kStrip outputs from (row, column) on, `step` columns apart, by the definition where they are
// NaN; see not_finite.cuh.
template <typename T>
__device__ __forceinline__ void replace_nan(float (&sums)[kStrip][kChunk<T>], const ChannelsLastParameters& p,
                                            int64_t n, int channel, int row, int column, int step) {
  // Registers have no addresses: sums move through the first in turn.
#pragma unroll 1
  for (int turn = 0; turn < kStrip * kChunk<T>; ++turn) {
    const int own_column = column + turn / kChunk<T> * step, own_channel = channel + turn % kChunk<T>;
    float first = sums[0][0];
    if (first != first && own_column < p.columns.output && own_channel < p.channels) {
      const T* source = static_cast<const T*>(p.source) + n * p.source_batch + own_channel;
      const T* weights = static_cast<const T*>(p.weights) + own_channel * p.weight_strides.filter;
      first = sum_of_terms(p.rows, p.columns, p.transposed, row, own_column, [&](int r, int s, int y, int x) {
        const int own_r = p.reversed ? p.rows.taps - 1 - r : r, own_s = p.reversed ? p.columns.taps - 1 - s : s;
        return Numeric<T>::load(source[y * p.source_row + x * p.source_column]) *
               Numeric<T>::load(weights[own_r * p.weight_strides.row + own_s * p.weight_strides.column]);
      });
    }
#pragma unroll
    for (int i = 0; i < kStrip * kChunk<T>; ++i) {
      const int next = i + 1 < kStrip * kChunk<T> ? i + 1 : 0;
      sums[i / kChunk<T>][i % kChunk<T>] = next > 0 ? sums[next / kChunk<T>][next % kChunk<T>] : first;
    }
  }
}

// The first source place of a tile whose first output is `first`.
__device__ __forceinline__ int first_source(const Axis& axis, bool transposed, int first) {
  if (!transposed) return first * axis.stride - axis.offset;
  const int lowest = first + axis.offset - (axis.taps - 1) * axis.dilation;
  return lowest >= 0 ? lowest / axis.stride : -((axis.stride - 1 - lowest) / axis.stride);
}

// kTaps: S where stride and dilation along columns are 1 and the pass is not transposed; 0 for all others.
template <typename T, int kTaps>
__global__ void __launch_bounds__(kSlabThreads, 3)
    channels_last_kernel(const __grid_constant__ ChannelsLastParameters p) {
  constexpr int kElements = kChunk<T>;
  uint32_t slab = blockIdx.x;
  uint32_t column_tile = p.slabs.split(slab);
  uint32_t row_tile = p.column_tiles.split(column_tile);
  const int64_t n = p.row_tiles.split(row_tile);
  const int first_channel = static_cast<int>(slab) * (kElements << p.slab_log2);
  const int first_row = static_cast<int>(row_tile) * p.phase_rows * p.row_phases;
  const int first_column = static_cast<int>(column_tile) * p.strips * kStrip * p.column_phases;
  const int source_row = first_source(p.rows, p.transposed, first_row);
  const int source_column = first_source(p.columns, p.transposed, first_column);

  T* staged = ptx::dynamic_shared_memory<T>();
  const int staged_rows = p.tile.row_phase_pitch * p.tile.row_phases;
  float* weights = reinterpret_cast<float*>(staged + ((staged_rows * p.tile.pitch) << p.slab_log2) * kElements);
  const SlabSource<T> source{static_cast<const T*>(p.source) + n * p.source_batch,
                             p.source_row,
                             p.source_column,
                             p.rows.source,
                             p.columns.source,
                             p.channels,
                             p.vector_source};
  stage_slab(staged, p.tile, source, source_row, source_column, first_channel, p.slab_log2);
  float* turned = weights + ((p.rows.taps * p.columns.taps + 1) * kElements << p.slab_log2);
  const bool finite = stage_slab_weights<T>(weights, turned, p, first_channel);
  ptx::wait_async_copies<0>();
  const bool may_replace = __syncthreads_or(!finite) && (p.transposed || p.reversed);

  const int slab_channels = kElements << p.slab_log2;
  const int items = (p.strips * p.phase_rows * p.row_phases * p.column_phases) << p.slab_log2;
  const int next_column = kElements << p.slab_log2;  // in the tile
  // Source place of the first output at tap 0, in transposed passes times the stride: not negative.
  const int row_base = p.transposed ? first_row + p.rows.offset - source_row * p.rows.stride : 0;
  const int column_base = p.transposed ? first_column + p.columns.offset - source_column * p.columns.stride : 0;
#pragma unroll 1
  for (int item = threadIdx.x; item < items; item += kSlabThreads) {
    const int chunk = item & ((1 << p.slab_log2) - 1);
    uint32_t strip = static_cast<uint32_t>(item) >> p.slab_log2;
    uint32_t row = p.strips_divider.split(strip);
    uint32_t column_phase = p.phase_rows_divider.split(row);
    const uint32_t row_phase = p.column_phases_divider.split(column_phase);
    const T* own =
        staged + ((static_cast<int>(row * p.tile.pitch + strip * kStrip) << p.slab_log2) + chunk) * kElements;

    float sums[kStrip][kElements] = {};
#pragma unroll 1
    for (int r = 0; r < p.rows.taps; ++r) {
      int tile_row;  // from `row`
      if (p.transposed) {
        uint32_t place = row_base + row_phase - r * p.rows.dilation;
        tile_row = p.rows.strides.split(place);
        if (place != 0) continue;
      } else {
        tile_row = slab_row(p.tile, r * p.rows.dilation);
      }
      const T* line = own + tile_row * p.tile.pitch * next_column;
      const float* tap = weights + r * p.columns.taps * slab_channels;
      if constexpr (kTaps > 0) {
        float filter[kTaps][kElements];
#pragma unroll
        for (int s = 0; s < kTaps; ++s) load_slab_weights<T>(tap + s * slab_channels, chunk, filter[s]);
#pragma unroll
        for (int x = 0; x < kStrip + kTaps - 1; ++x) {
          float values[kElements];
          load_chunk(line + x * next_column, values);
#pragma unroll
          for (int s = 0; s < kTaps; ++s) {
            if (x - s < 0 || x - s >= kStrip) continue;
#pragma unroll
            for (int e = 0; e < kElements; ++e) sums[x - s][e] += values[e] * filter[s][e];
          }
        }
      } else {
#pragma unroll 1
        for (int s = 0; s < p.columns.taps; ++s, tap += slab_channels) {
          int tile_column;
          if (p.transposed) {
            uint32_t place = column_base + column_phase - s * p.columns.dilation;
            tile_column = p.columns.strides.split(place);
            if (place != 0) continue;
          } else {
            tile_column = slab_column(p.tile, s * p.columns.dilation);
          }
          float filter[kElements];
          load_slab_weights<T>(tap, chunk, filter);
          const T* place = line + tile_column * next_column;
#pragma unroll
          for (int i = 0; i < kStrip; ++i) {
            float values[kElements];
            load_chunk(place + i * next_column, values);
#pragma unroll
            for (int e = 0; e < kElements; ++e) sums[i][e] += values[e] * filter[e];
          }
        }
      }
    }

    const int output_row = first_row + static_cast<int>(row) * p.row_phases + static_cast<int>(row_phase);
    const int output_column =
        first_column + static_cast<int>(strip) * kStrip * p.column_phases + static_cast<int>(column_phase);
    const int channel = first_channel + chunk * kElements;
    if (output_row >= p.rows.output || channel >= p.channels) continue;
    if (may_replace) replace_nan<T>(sums, p, n, channel, output_row, output_column, p.column_phases);
    float bias[kElements];
    load_slab_weights<T>(weights + p.rows.taps * p.columns.taps * slab_channels, chunk, bias);
    const int64_t residual_place = n * p.residual_batch + output_row * p.residual_row + channel;
    const int64_t output_place = n * p.output_batch + output_row * p.output_row + channel;
#pragma unroll
    for (int i = 0; i < kStrip; ++i) {
      const int column = output_column + i * p.column_phases;
#pragma unroll
      for (int e = 0; e < kElements; ++e) sums[i][e] += bias[e];
      if (p.residual != nullptr && column < p.columns.output) {
        const T* from = static_cast<const T*>(p.residual) + residual_place + column * p.residual_column;
        if (p.vector_residual) {
          float values[kElements];
          load_chunk(from, values);
#pragma unroll
          for (int e = 0; e < kElements; ++e) sums[i][e] += values[e];
        } else {
#pragma unroll
          for (int e = 0; e < kElements; ++e) {
            if (channel + e < p.channels) sums[i][e] += Numeric<T>::load(from[e]);
          }
        }
      }
    }
    if (p.activation != Activation::identity) {
#pragma unroll 1
      for (int turn = 0; turn < kStrip; ++turn) {
        activate_all(p.activation, sums[0]);
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          const float first = sums[0][e];
#pragma unroll
          for (int i = 0; i + 1 < kStrip; ++i) sums[i][e] = sums[i + 1][e];
          sums[kStrip - 1][e] = first;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kStrip; ++i) {
      const int column = output_column + i * p.column_phases;
      if (column >= p.columns.output) continue;
      T* to = static_cast<T*>(p.output) + output_place + column * p.output_column;
      if (p.vector_output) {
        store_chunk(to, sums[i]);
      } else {
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          if (channel + e < p.channels) to[e] = Numeric<T>::store(sums[i][e]);
        }
      }
    }
  }
}

}  // namespace fastconv::depthwise
