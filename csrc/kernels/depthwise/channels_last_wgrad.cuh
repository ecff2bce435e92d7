// Depthwise wgrad, channels innermost.
//
// A block has a slab of channels and a part of the images. Tile by tile it stages x and dy in shared memory, each read
// from global memory once, and its threads share the work by channels (16 bytes each), by groups of taps, and by strips
// of dy. A thread keeps the sums of its taps in registers: a strip's gradients meet each place of x that it loads. In
// the end the strips' sums are added in order, and blocks' (splits) by split_sum.cuh. Sums that are not finite are
// computed again: exact_tap.cuh.
#pragma once

#include "kernels/depthwise/exact_tap.cuh"
#include "kernels/depthwise/slab.cuh"

namespace fastconv::depthwise {

// Taps of a group in filters that are not unrolled.
constexpr int kTapsOfThread = 4;

struct ChannelsLastWgradParameters {
  const void* x;      // [N, H, W, C]
  const void* dy;     // [N, P, Q, C]
  void* dw;           // [C, 1, R, S]; written where there is one split
  void* db;           // [C], or null; likewise
  float* parts;       // [splits, R, S, C], or null
  float* bias_parts;  // [splits, C]
  int64_t x_batch, x_row, x_column;
  int64_t dy_batch, dy_row, dy_column;
  bool vector_x, vector_dy;
  Weights dw_strides;
  Axis rows, columns;
  int channels;
  SlabTile x_tile, dy_tile;
  int slab_log2;
  int strips, tile_rows;  // of dy, in a tile
  FastDivider<uint32_t> strips_divider;
  FastDivider<uint32_t> column_tiles, row_tiles;  // of an image
  int tiles, tiles_of_split;
  int block_groups, lanes;  // tap groups of a block, and threads that share a group and chunk
  FastDivider<uint32_t> lanes_divider, groups_of_row;
  int groups;                                 // of the filter
  FastDivider<uint32_t> slabs, group_blocks;  // grid: slabs fastest, then blocks of groups, then splits
};

// Where a tile of dy begins.
struct GradientTile {
  int64_t n;
  int row, column;

  __device__ __forceinline__ GradientTile(const ChannelsLastWgradParameters& p, int tile) {
    uint32_t column_tile = tile;
    uint32_t row_tile = p.column_tiles.split(column_tile);
    n = p.row_tiles.split(row_tile);
    row = static_cast<int>(row_tile) * p.tile_rows;
    column = static_cast<int>(column_tile) * p.strips * kStrip;
  }
};

// What the tiles [first, end) add to a channel's tap (r, s), by the definition.
template <typename T>
__device__ float exact_tap_of_tiles(const ChannelsLastWgradParameters& p, int first, int end, int channel, int r,
                                    int s) {
  float sum = 0;
#pragma unroll 1
  for (int tile = first; tile < end; ++tile) {
    const auto [n, row, column] = GradientTile(p, tile);
    const ChannelPlane<T> x{static_cast<const T*>(p.x) + n * p.x_batch + channel, p.x_row, p.x_column};
    const ChannelPlane<T> dy{static_cast<const T*>(p.dy) + n * p.dy_batch + channel, p.dy_row, p.dy_column};
    sum += exact_tap(x, dy, p.rows, p.columns, row, min(row + p.tile_rows, p.rows.output), column,
                     min(column + p.strips * kStrip, p.columns.output), r, s);
  }
  return sum;
}

// kTaps: S where stride and dilation along columns are 1; 0 for all others.
template <typename T, int kTaps>
__global__ void __launch_bounds__(kSlabThreads, 3)
    channels_last_wgrad_kernel(const __grid_constant__ ChannelsLastWgradParameters p) {
  constexpr int kElements = kChunk<T>, kOwn = kTaps > 0 ? kTaps : kTapsOfThread;
  uint32_t slab = blockIdx.x;
  uint32_t group_block = p.slabs.split(slab);
  const uint32_t split = p.group_blocks.split(group_block);
  const int first_channel = static_cast<int>(slab) * (kElements << p.slab_log2);
  const int chunk = threadIdx.x & ((1 << p.slab_log2) - 1);
  uint32_t lane = threadIdx.x >> p.slab_log2;
  const int local_group = p.lanes_divider.split(lane);
  const int group = static_cast<int>(group_block) * p.block_groups + local_group;
  const bool works = local_group < p.block_groups && group < p.groups;
  uint32_t first_tap = group;
  const int tap_row = p.groups_of_row.split(first_tap);
  first_tap *= kOwn;

  T* staged_x = ptx::dynamic_shared_memory<T>();
  const int x_places = p.x_tile.row_phase_pitch * p.x_tile.row_phases * p.x_tile.pitch;
  T* staged_dy = staged_x + (x_places << p.slab_log2) * kElements;
  const int next_column = kElements << p.slab_log2;
  const T* x_line =
      staged_x + slab_row(p.x_tile, tap_row * p.rows.dilation) * p.x_tile.pitch * next_column + chunk * kElements;
  int column_place[kOwn];  // of taps that are not neighbours
#pragma unroll
  for (int t = 0; t < kOwn; ++t) {
    const int tap = min(static_cast<int>(first_tap) + t, p.columns.taps - 1);
    column_place[t] = kTaps > 0 ? 0 : slab_column(p.x_tile, tap * p.columns.dilation) * next_column;
  }

  float sums[kOwn][kElements] = {}, bias[kElements] = {};
  const int first_tile = static_cast<int>(split) * p.tiles_of_split;
  const int end_tile = min(first_tile + p.tiles_of_split, p.tiles);
#pragma unroll 1
  for (int tile = first_tile; tile < end_tile; ++tile) {
    const auto [n, first_row, first_column] = GradientTile(p, tile);
    const SlabSource<T> x{static_cast<const T*>(p.x) + n * p.x_batch,
                          p.x_row,
                          p.x_column,
                          p.rows.source,
                          p.columns.source,
                          p.channels,
                          p.vector_x};
    const SlabSource<T> dy{static_cast<const T*>(p.dy) + n * p.dy_batch,
                           p.dy_row,
                           p.dy_column,
                           p.rows.output,
                           p.columns.output,
                           p.channels,
                           p.vector_dy};
    __syncthreads();
    stage_slab(staged_x, p.x_tile, x, first_row * p.rows.stride - p.rows.offset,
               first_column * p.columns.stride - p.columns.offset, first_channel, p.slab_log2);
    stage_slab(staged_dy, p.dy_tile, dy, first_row, first_column, first_channel, p.slab_log2);
    ptx::wait_async_copies<0>();
    __syncthreads();

    const int items = works ? p.strips * p.tile_rows : 0;
#pragma unroll 1
    for (int item = lane; item < items; item += p.lanes) {
      uint32_t strip = item;
      const int row = p.strips_divider.split(strip);
      const T* gradients =
          staged_dy + (row * p.dy_tile.pitch + static_cast<int>(strip) * kStrip) * next_column + chunk * kElements;
      const T* line = x_line + (row * p.x_tile.pitch + static_cast<int>(strip) * kStrip) * next_column;
      float gradient[kStrip][kElements];
#pragma unroll
      for (int i = 0; i < kStrip; ++i) load_chunk(gradients + i * next_column, gradient[i]);
      if (p.db != nullptr && group == 0) {
#pragma unroll
        for (int i = 0; i < kStrip; ++i) {
#pragma unroll
          for (int e = 0; e < kElements; ++e) bias[e] += gradient[i][e];
        }
      }
      if constexpr (kTaps > 0) {
#pragma unroll
        for (int place = 0; place < kStrip + kTaps - 1; ++place) {
          float values[kElements];
          load_chunk(line + place * next_column, values);
#pragma unroll
          for (int s = 0; s < kTaps; ++s) {
            if (place - s < 0 || place - s >= kStrip) continue;
#pragma unroll
            for (int e = 0; e < kElements; ++e) sums[s][e] += values[e] * gradient[place - s][e];
          }
        }
      } else {
#pragma unroll
        for (int t = 0; t < kOwn; ++t) {
#pragma unroll
          for (int i = 0; i < kStrip; ++i) {
            float values[kElements];
            load_chunk(line + column_place[t] + i * next_column, values);
#pragma unroll
            for (int e = 0; e < kElements; ++e) sums[t][e] += values[e] * gradient[i][e];
          }
        }
      }
    }
  }

  // The lanes of a group, in order. turned: [tap, element, or element of the bias][thread]
  float* turned = ptx::dynamic_shared_memory<float>();
  __syncthreads();
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
#pragma unroll
    for (int t = 0; t < kOwn; ++t) turned[(t * kElements + e) * kSlabThreads + threadIdx.x] = sums[t][e];
    turned[(kOwn * kElements + e) * kSlabThreads + threadIdx.x] = bias[e];
  }
  __syncthreads();
  const int channel = first_channel + chunk * kElements;
  if (!works || lane != 0 || channel >= p.channels) return;
#pragma unroll 1
  for (int t = 0; t <= kOwn; ++t) {
    const int s = static_cast<int>(first_tap) + t;
    const bool is_bias = t == kOwn;
    if (is_bias ? p.db == nullptr || group != 0 : s >= p.columns.taps) continue;
#pragma unroll 1
    for (int e = 0; e < kElements && channel + e < p.channels; e += 4) {
      float totals[4] = {};
      for (int l = 0; l < p.lanes; ++l) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          totals[i] += turned[(t * kElements + e + i) * kSlabThreads + threadIdx.x + (l << p.slab_log2)];
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (is_bias || is_finite(totals[i]) || channel + e + i >= p.channels) continue;
        totals[i] = exact_tap_of_tiles<T>(p, first_tile, end_tile, channel + e + i, tap_row, s);
      }
      const int64_t row = is_bias ? split : (static_cast<int64_t>(split) * p.rows.taps + tap_row) * p.columns.taps + s;
      float* part = (is_bias ? p.bias_parts : p.parts) + (row * p.channels + channel + e);
      if (p.parts != nullptr && p.channels % 4 == 0) {
        ptx::store_vector(part, ptx::Vector<float, 4>{totals[0], totals[1], totals[2], totals[3]});
        continue;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (channel + e + i >= p.channels) continue;
        const int64_t filter = channel + e + i;
        if (p.parts != nullptr) {
          part[i] = totals[i];
        } else if (is_bias) {
          static_cast<T*>(p.db)[filter] = Numeric<T>::store(totals[i]);
        } else {
          static_cast<T*>(p.dw)[filter * p.dw_strides.filter + tap_row * p.dw_strides.row + s * p.dw_strides.column] =
              Numeric<T>::store(totals[i]);
        }
      }
    }
  }
}

}  // namespace fastconv::depthwise
