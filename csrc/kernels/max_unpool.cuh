// Max unpooling: values put back at the flat positions row * W + column that a pool remembered, among zeros.
// max_unpool_gather.cuh picks them again.
//
// Positions may repeat. The last value in the order of the pooled plane stands, as in PyTorch on a CPU, or (add) all of
// them are summed in that order. So one thread, or one warp in step, decides about a position: it goes through all
// indices of the plane in order and writes those that fall into its share of the positions, which it has filled with
// zeros before.
//
// Where columns are side by side a warp has a plane's share: of lanes that want the same position the highest writes,
// and a barrier of the warp stands between one row of 32 indices and the next. Where channels are, a lane has a channel
// to itself. More shares make more warps, each of which reads all indices of its plane.
//
// Indices and values are read 16 bytes at a time, several rows of 32 at once, and go through shared memory to the lanes
// whose turn they are; what they name is written by elements. Where operands have no vectors, each lane reads its own;
// of a vector in which a plane begins or ends, its elements are read.
#pragma once

#include "common/fast_division.h"
#include "common/numeric.h"
#include "kernels/index.cuh"
#include "kernels/max_unpool_zeros.cuh"
#include "ptx/device.h"
#include "ptx/require.h"
#include "ptx/vector.h"

namespace fastconv {

constexpr int kUnpoolThreads = 128;
constexpr int kUnpoolWarps = kUnpoolThreads / 32;
constexpr int kUnpoolUnroll = 4;                 // indices of a thread under way at once
constexpr int kUnpoolStep = 32 * kUnpoolUnroll;  // those of a warp

struct UnpoolParameters {
  const void* values;      // forward, add: x [N, C, P, Q]; gather: y [N, C, H, W]
  const int64_t* indices;  // [N, C, P, Q]
  void* output;            // forward, add: y [N, C, H, W]; gather: x [N, C, P, Q]
  Strides<int64_t> value_strides, index_strides, output_strides;
  int sources, positions;                                  // P * Q, H * W
  FastDivider<uint32_t> source_columns, position_columns;  // Q, W
  bool adds;
  bool is_one_piece;                                  // rows of y follow each other without a gap
  bool has_vectors;                                   // x and the indices can be read 16 bytes at a time
  int64_t tasks;                                      // warps with something to do; gather: elements
  int shares, per_share;                              // of a plane's positions
  DividerOf<int64_t> share_divider, channel_divider;  // channels, or in channels groups of 32 of them
  int channels;
  bool channels_are_fastest;         // gather: the order in which elements are counted
  DividerOf<int64_t> plane_divider;  // gather: P * Q
};

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

// A step's indices and values on their way to the lanes, in the order of the plane: kUnpoolUnroll rows of 32.
template <typename T>
struct UnpoolStage {
  int* wanted;  // [kUnpoolStep], -1 where the position is another share's
  T* values;    // [kUnpoolStep]
};

// kCount neighbours of a step, the first of them element `first`; in part: those of [begin, end), and `absent`
// elsewhere.
template <int kCount, bool kIsWhole, typename T>
__device__ __forceinline__ ptx::Vector<T, kCount> step_vector(const T* source, int first, UnpoolRange inside,
                                                              T absent) {
  if constexpr (kIsWhole) {
    return ptx::load_vector<kCount>(source);
  } else {
    if (first >= inside.begin && first + kCount <= inside.end) return ptx::load_vector<kCount>(source);
    ptx::Vector<T, kCount> result;
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      result[e] = first + e >= inside.begin && first + e < inside.end ? source[e] : absent;
    }
    return result;
  }
}

// Fills the stage by vectors; false, and values are not read, where no position of the step is the share's. index_at
// and value_at: the address of the step's element of that number, which vectors of neighbours begin at. inside: the
// elements that the step has, where it is not whole.
template <bool kIsWhole = true, typename T, typename IndexAt, typename ValueAt>
__device__ __forceinline__ bool fill_stage(const UnpoolParameters& p, const UnpoolTask& task, int lane,
                                           const UnpoolStage<T>& stage, const IndexAt& index_at,
                                           const ValueAt& value_at, UnpoolRange inside = {0, kUnpoolStep}) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T)), kPairs = kUnpoolStep / 64;
  ptx::Vector<int64_t, 2> index[kPairs];
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int first = i * 64 + lane * 2;
    index[i] = step_vector<2, kIsWhole>(index_at(first), first, inside, int64_t{-1});
  }
  __syncwarp();  // every lane is done with the step before
  bool is_any_mine = false;
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    ptx::Vector<int, 2> wanted;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int element = i * 64 + lane * 2 + e;
      if (kIsWhole || (element >= inside.begin && element < inside.end)) require_position(p, index[i][e]);
      const bool is_mine = index[i][e] >= task.begin && index[i][e] < task.end;
      wanted[e] = is_mine ? static_cast<int>(index[i][e]) : -1;
      is_any_mine |= is_mine;
    }
    ptx::store_vector(stage.wanted + i * 64 + lane * 2, wanted);
  }
  if (!__any_sync(0xffffffffu, is_any_mine)) return false;
#pragma unroll
  for (int first = 0; first < kUnpoolStep; first += 32 * kElements) {
    const int i = first + lane * kElements;
    if (i < kUnpoolStep) {
      const T absent = Numeric<T>::store(0);
      ptx::store_vector(stage.values + i, step_vector<kElements, kIsWhole>(value_at(i), i, inside, absent));
    }
  }
  __syncwarp();
  return true;
}

template <typename T>
__global__ void __launch_bounds__(kUnpoolThreads) max_unpool_kernel(const __grid_constant__ UnpoolParameters p) {
  constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  __shared__ ptx::Vector<int, 2> shared_wanted[kUnpoolWarps][kUnpoolStep / 2];
  __shared__ ptx::Vector<T, kVector> shared_values[kUnpoolWarps][kUnpoolStep / kVector];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const UnpoolStage<T> stage{reinterpret_cast<int*>(shared_wanted[warp]), reinterpret_cast<T*>(shared_values[warp])};
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t number = static_cast<int64_t>(blockIdx.x) * kUnpoolWarps + warp;
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
  // Steps begin where vectors of x do; vectors of the indices, which lie alike, then begin there too.
  const int lead = p.has_vectors ? static_cast<int>(reinterpret_cast<uintptr_t>(x) / sizeof(T) % kVector) : 0;
#pragma unroll 1
  for (int first = -lead; first < p.sources; first += kUnpoolStep) {
    if (p.has_vectors) {
      const auto index_at = [&](int i) { return indices + first + i; };
      const auto value_at = [&](int i) { return x + first + i; };
      const UnpoolRange inside{max(0, -first), min(kUnpoolStep, p.sources - first)};
      const bool is_any_mine = inside.end - inside.begin == kUnpoolStep
                                   ? fill_stage(p, task, lane, stage, index_at, value_at)
                                   : fill_stage<false>(p, task, lane, stage, index_at, value_at, inside);
      if (!is_any_mine) continue;
#pragma unroll
      for (int i = 0; i < kUnpoolStep; i += 32) {
        if (i >= inside.end) break;
        put_in_step(p, y, stage.values + i + lane, stage.wanted[i + lane], lane);
        __syncwarp();
      }
      continue;
    }
    int64_t index[kUnpoolUnroll];
#pragma unroll
    for (int i = 0; i < kUnpoolUnroll; ++i) {
      const int source = first + i * 32 + lane;
      index[i] = is_inside(source, p.sources) ? indices[at_flat(p.index_strides, p.source_columns, source)] : -1;
    }
#pragma unroll
    for (int i = 0; i < kUnpoolUnroll; ++i) {
      const int source = first + i * 32 + lane;
      if (is_inside(source, p.sources)) require_position(p, index[i]);
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
  constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  __shared__ ptx::Vector<int, 2> shared_wanted[kUnpoolWarps][kUnpoolStep / 2];
  __shared__ ptx::Vector<T, kVector> shared_values[kUnpoolWarps][kUnpoolStep / kVector];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const UnpoolStage<T> stage{reinterpret_cast<int*>(shared_wanted[warp]), reinterpret_cast<T*>(shared_values[warp])};
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t number = static_cast<int64_t>(blockIdx.x) * kUnpoolWarps + warp;
  if (number >= p.tasks) return;
  const UnpoolTask task = unpool_task(p, number, 32);
  const int channel = task.channel + lane;
  T* image = static_cast<T*>(p.output) + task.n * p.output_strides.batch;

  clear_channels(p.output_strides, p.position_columns, image, {task.channel, p.channels}, {task.begin, task.end},
                 p.is_one_piece, lane);
  __syncwarp();
  const T* x = static_cast<const T*>(p.values) + task.n * p.value_strides.batch;
  const int64_t* indices = p.indices + task.n * p.index_strides.batch;
  T* y = image + channel * p.output_strides.channel;
  const auto put = [&](int wanted, T value) {
    T& target = y[at_flat(p.output_strides, p.position_columns, wanted)];
    target = p.adds ? Numeric<T>::store(Numeric<T>::load(target) + Numeric<T>::load(value)) : value;
  };
  const bool has_vectors = p.has_vectors && task.channel + 32 <= p.channels;
#pragma unroll 1
  for (int first = 0; first < p.sources; first += kUnpoolUnroll) {
    if (has_vectors && first + kUnpoolUnroll <= p.sources) {
      const auto place = [&](const Strides<int64_t>& strides, int i) {
        return at_flat(strides, p.source_columns, first + i / 32) + task.channel + i % 32;
      };
      const bool is_any_mine = fill_stage(
          p, task, lane, stage, [&](int i) { return indices + place(p.index_strides, i); },
          [&](int i) { return x + place(p.value_strides, i); });
      if (!is_any_mine) continue;
#pragma unroll
      for (int i = 0; i < kUnpoolStep; i += 32) {
        const int wanted = stage.wanted[i + lane];
        if (wanted >= 0) put(wanted, stage.values[i + lane]);
      }
      continue;
    }
    if (channel >= p.channels) continue;
    int64_t index[kUnpoolUnroll];
#pragma unroll
    for (int i = 0; i < kUnpoolUnroll; ++i) {
      index[i] =
          first + i < p.sources
              ? indices[channel * p.index_strides.channel + at_flat(p.index_strides, p.source_columns, first + i)]
              : -1;
    }
#pragma unroll
    for (int i = 0; i < kUnpoolUnroll; ++i) {
      if (first + i >= p.sources) break;
      require_position(p, index[i]);
      if (index[i] < task.begin || index[i] >= task.end) continue;
      put(static_cast<int>(index[i]),
          x[channel * p.value_strides.channel + at_flat(p.value_strides, p.source_columns, first + i)]);
    }
  }
}

}  // namespace fastconv
