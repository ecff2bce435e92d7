// Max unpooling: values put back at the flat positions row * W + column that a pool remembered, among zeros; and
// gather, which picks them again.
//
// Positions may repeat. The last value in the order of the pooled plane stands, as in PyTorch on a CPU, or (add) all of
// them are summed in that order. So one thread, or one warp in step, decides about a position: it goes through all
// indices of the plane in order and writes those that fall into its share of the positions, which it has filled with
// zeros before.
//
// Where columns are side by side a warp has a plane's share: of lanes that want the same position the highest writes,
// and a barrier of the warp stands between one row of 32 indices and the next. Where channels are, a lane has a channel
// to itself. More shares make more warps, each of which reads all indices of its plane.
#pragma once

#include "common/fast_division.h"
#include "common/numeric.h"
#include "kernels/index.cuh"
#include "ptx/device.h"
#include "ptx/require.h"

namespace fastconv {

constexpr int kUnpoolThreads = 128;
constexpr int kUnpoolUnroll = 4;  // indices of a thread under way at once

struct UnpoolParameters {
  const void* values;      // forward, add: x [N, C, P, Q]; gather: y [N, C, H, W]
  const int64_t* indices;  // [N, C, P, Q]
  void* output;            // forward, add: y [N, C, H, W]; gather: x [N, C, P, Q]
  Strides<int64_t> value_strides, index_strides, output_strides;
  int sources, positions;                                  // P * Q, H * W
  FastDivider<uint32_t> source_columns, position_columns;  // Q, W
  bool adds;
  bool is_one_piece;                                  // rows of y follow each other without a gap
  int64_t tasks;                                      // warps with something to do; gather: elements
  int shares, per_share;                              // of a plane's positions
  DividerOf<int64_t> share_divider, channel_divider;  // channels, or in channels groups of 32 of them
  int channels;
  bool channels_are_fastest;         // gather: the order in which elements are counted
  DividerOf<int64_t> plane_divider;  // gather: P * Q
};

__device__ inline int64_t at_flat(const Strides<int64_t>& strides, const FastDivider<uint32_t>& columns, int flat) {
  uint32_t column = static_cast<uint32_t>(flat);
  const uint32_t row = columns.split(column);
  return row * strides.row + column * strides.column;
}

__device__ __forceinline__ void require_position(const UnpoolParameters& p, int64_t index) {
  ptx::require(is_inside(index, static_cast<int64_t>(p.positions)),
               "an index of max_unpool2d lies outside the output; accepted are 0 to H * W - 1");
}

// A warp's share of the positions of one plane, or of 32 planes.
struct UnpoolTask {
  int64_t n;
  int channel, begin, end;  // channel: the first of them
};

__device__ inline UnpoolTask unpool_task(const UnpoolParameters& p, int64_t number, int channels_each) {
  uint64_t share = static_cast<uint64_t>(number);
  uint64_t group = p.share_divider.split(share);
  const uint64_t n = p.channel_divider.split(group);
  const int begin = min(p.positions, static_cast<int>(share) * p.per_share);
  return {static_cast<int64_t>(n), static_cast<int>(group) * channels_each, begin,
          min(p.positions, begin + p.per_share)};
}

// Zeros at `count` neighbouring elements, by the lanes of a warp.
template <typename T>
__device__ __forceinline__ void clear_piece(T* first, int count, int lane) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T));
  const int lead = static_cast<int>(reinterpret_cast<uintptr_t>(first) / sizeof(T) % kElements);
  ptx::Vector<T, kElements> zeros;
#pragma unroll
  for (int e = 0; e < kElements; ++e) zeros[e] = Numeric<T>::store(0);
  for (int begin = lane * kElements - lead; begin < count; begin += 32 * kElements) {
    if (begin >= 0 && begin + kElements <= count) {
      ptx::store_vector(first + begin, zeros);
    } else {
      for (int i = max(0, begin); i < min(count, begin + kElements); ++i) first[i] = zeros[0];
    }
  }
}

// Puts one row of 32 values where they belong. All lanes come here; `wanted` is -1 where a lane has nothing to put.
template <typename T>
__device__ __forceinline__ void put_in_step(const UnpoolParameters& p, T* y, const T* value, int wanted, int lane) {
  const int key = wanted >= 0 ? wanted : -1 - lane;
  const unsigned same = __match_any_sync(0xffffffffu, key);
  const bool is_last = wanted >= 0 && (same >> lane) == 1u;
  if (!p.adds) {
    if (is_last) y[at_flat(p.output_strides, p.position_columns, wanted)] = *value;
    return;
  }
  AccumulatorOf<T> sum = wanted >= 0 ? Numeric<T>::load(*value) : AccumulatorOf<T>{0};
  if (__any_sync(0xffffffffu, (same & (same - 1)) != 0)) {
    AccumulatorOf<T> total = 0;
#pragma unroll 1
    for (int other = 0; other < 32; ++other) {
      const AccumulatorOf<T> offered = __shfl_sync(0xffffffffu, sum, other);
      if ((same >> other) & 1u) total += offered;
    }
    sum = total;
  }
  if (is_last) {
    T& target = y[at_flat(p.output_strides, p.position_columns, wanted)];
    target = Numeric<T>::store(Numeric<T>::load(target) + sum);
  }
}

template <typename T>
__global__ void __launch_bounds__(kUnpoolThreads) max_unpool_kernel(const __grid_constant__ UnpoolParameters p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t number = static_cast<int64_t>(blockIdx.x) * (kUnpoolThreads / 32) + threadIdx.x / 32;
  if (number >= p.tasks) return;
  const UnpoolTask task = unpool_task(p, number, 1);
  const T* x =
      static_cast<const T*>(p.values) + task.n * p.value_strides.batch + task.channel * p.value_strides.channel;
  const int64_t* indices = p.indices + task.n * p.index_strides.batch + task.channel * p.index_strides.channel;
  T* y = static_cast<T*>(p.output) + task.n * p.output_strides.batch + task.channel * p.output_strides.channel;

  if (p.is_one_piece) {
    clear_piece(y + task.begin, task.end - task.begin, lane);
  } else {
    for (int i = task.begin + lane; i < task.end; i += 32) {
      y[at_flat(p.output_strides, p.position_columns, i)] = Numeric<T>::store(0);
    }
  }
  __syncwarp();
#pragma unroll 1
  for (int first = 0; first < p.sources; first += 32 * kUnpoolUnroll) {
    int64_t index[kUnpoolUnroll];
#pragma unroll
    for (int i = 0; i < kUnpoolUnroll; ++i) {
      const int source = first + i * 32 + lane;
      index[i] = source < p.sources ? indices[at_flat(p.index_strides, p.source_columns, source)] : -1;
    }
#pragma unroll
    for (int i = 0; i < kUnpoolUnroll; ++i) {
      const int source = first + i * 32 + lane;
      if (source < p.sources) require_position(p, index[i]);
      const bool is_mine = index[i] >= task.begin && index[i] < task.end;
      const T* value = x + (is_mine ? at_flat(p.value_strides, p.source_columns, source) : 0);
      put_in_step(p, y, value, is_mine ? static_cast<int>(index[i]) : -1, lane);
      __syncwarp();
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kUnpoolThreads)
    max_unpool_channels_kernel(const __grid_constant__ UnpoolParameters p) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T)), kVectors = 32 / kElements;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t number = static_cast<int64_t>(blockIdx.x) * (kUnpoolThreads / 32) + threadIdx.x / 32;
  if (number >= p.tasks) return;
  const UnpoolTask task = unpool_task(p, number, 32);
  const int channel = task.channel + lane;
  T* image = static_cast<T*>(p.output) + task.n * p.output_strides.batch;

  // is_one_piece: whole accesses of channels everywhere.
  if (p.is_one_piece) {
    ptx::Vector<T, kElements> zeros;
#pragma unroll
    for (int e = 0; e < kElements; ++e) zeros[e] = Numeric<T>::store(0);
    const int first = task.channel + lane % kVectors * kElements;
    for (int i = task.begin + lane / kVectors; i < task.end; i += kElements) {
      if (first < p.channels) {
        ptx::store_vector(image + first + at_flat(p.output_strides, p.position_columns, i), zeros);
      }
    }
  } else if (channel < p.channels) {
    for (int i = task.begin; i < task.end; ++i) {
      image[channel * p.output_strides.channel + at_flat(p.output_strides, p.position_columns, i)] =
          Numeric<T>::store(0);
    }
  }
  __syncwarp();
  if (channel >= p.channels) return;
  const T* x = static_cast<const T*>(p.values) + task.n * p.value_strides.batch + channel * p.value_strides.channel;
  const int64_t* indices = p.indices + task.n * p.index_strides.batch + channel * p.index_strides.channel;
  T* y = image + channel * p.output_strides.channel;
#pragma unroll 1
  for (int first = 0; first < p.sources; first += kUnpoolUnroll) {
    int64_t index[kUnpoolUnroll];
#pragma unroll
    for (int i = 0; i < kUnpoolUnroll; ++i) {
      index[i] = first + i < p.sources ? indices[at_flat(p.index_strides, p.source_columns, first + i)] : -1;
    }
#pragma unroll
    for (int i = 0; i < kUnpoolUnroll; ++i) {
      if (first + i >= p.sources) break;
      require_position(p, index[i]);
      if (index[i] < task.begin || index[i] >= task.end) continue;
      const T value = x[at_flat(p.value_strides, p.source_columns, first + i)];
      T& target = y[at_flat(p.output_strides, p.position_columns, static_cast<int>(index[i]))];
      target = p.adds ? Numeric<T>::store(Numeric<T>::load(target) + Numeric<T>::load(value)) : value;
    }
  }
}

// x = y at each index. Bits: an unsigned integer as wide as the number type.
template <typename Bits>
__global__ void __launch_bounds__(kUnpoolThreads) max_unpool_gather_kernel(const __grid_constant__ UnpoolParameters p) {
  const int64_t position = static_cast<int64_t>(blockIdx.x) * kUnpoolThreads + threadIdx.x;
  if (position >= p.tasks) return;
  uint64_t source = static_cast<uint64_t>(position), channel, n;
  if (p.channels_are_fastest) {
    channel = source;
    source = p.channel_divider.split(channel);
    n = p.plane_divider.split(source);
  } else {
    channel = p.plane_divider.split(source);
    n = p.channel_divider.split(channel);
  }
  const auto plane = [&](const Strides<int64_t>& strides) {
    return static_cast<int64_t>(n) * strides.batch + static_cast<int64_t>(channel) * strides.channel;
  };
  const int flat = static_cast<int>(source);
  const int64_t index = p.indices[plane(p.index_strides) + at_flat(p.index_strides, p.source_columns, flat)];
  require_position(p, index);
  Bits value = 0;
  if (is_inside(index, static_cast<int64_t>(p.positions))) {
    value = static_cast<const Bits*>(
        p.values)[plane(p.value_strides) + at_flat(p.value_strides, p.position_columns, static_cast<int>(index))];
  }
  static_cast<Bits*>(p.output)[plane(p.output_strides) + at_flat(p.output_strides, p.source_columns, flat)] = value;
}

}  // namespace fastconv
